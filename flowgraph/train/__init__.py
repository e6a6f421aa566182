"""The runner: takes a cost, optimisers, data; trains. Minibatching is part of the graph, so nothing here runs per step."""

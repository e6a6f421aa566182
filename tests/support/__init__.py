"""What tests share: the ways to run a graph, the comparison of results, random graphs."""

"""The lecture's systems, each a script to read in one sitting: `python -m examples.NAME [--quick] [--out FOLDER]`.

Each has `main(quick, out)`, which trains, leaves its pictures in the folder and returns its results. `--quick` takes
under half a minute on data that ship with flowgraph, and shows that everything works; without it come the results that
the docs state. `make examples` runs them all and writes what the docs show.
"""

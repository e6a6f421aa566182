"""G -> better G. The order is in pipeline.py and nowhere else; one file per pass."""

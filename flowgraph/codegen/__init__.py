"""L -> readable numba source, in two dialects; and the preludes: the names such source is written in."""

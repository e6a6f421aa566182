"""K + a Schedule -> L. A Schedule is a few plain choices; `lower` makes loops, vectors and threads explicit."""

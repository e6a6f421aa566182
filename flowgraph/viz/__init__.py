"""Any stage of the compiler as a picture: SVG, DOT, Mermaid, text. `show` is what users call."""

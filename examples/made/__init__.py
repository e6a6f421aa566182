"""Data that examples make themselves where no real ones may ship, each by a documented generator with a fixed seed."""

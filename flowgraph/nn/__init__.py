"""Layers, losses and initialisers, composed only of ops."""

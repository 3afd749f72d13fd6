"""Data sets and what is done to images before they reach a network."""

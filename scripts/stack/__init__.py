"""Slipway's scripts; docs/decisions/0001-stories-in-python.md explains each folder."""

"""Slipway's scripts: pure builders in `commands`, stories in `stories`, what the operator wrote in `config`."""

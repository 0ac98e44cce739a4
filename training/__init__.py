"""How one run happens: configuration, data, the Lightning module, the run directory."""

"""Brain data sets: one file each, with a function `build` (the data) and, where every run is examined with it, a benchmark."""

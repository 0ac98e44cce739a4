"""Brain data sets: one file each, with a function `build` (the data), and perhaps a benchmark."""

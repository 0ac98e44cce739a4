"""Brain alignment: layers and learning signals against the hierarchy of the visual brain. One file per benchmark."""

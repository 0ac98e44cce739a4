"""Illusions: is a network fooled by what fools us? One file per illusion; stimuli in linear luminance."""

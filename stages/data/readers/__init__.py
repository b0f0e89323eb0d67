"""Readers of data sets: each turns the files of one split, as they come, into `AnnotatedVideo`s."""

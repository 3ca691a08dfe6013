"""Families of features, a file each. `model.ranking.features` has the list."""

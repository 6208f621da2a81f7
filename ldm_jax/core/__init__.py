"""The ground floor: types, trees, named randomness, sharding, files."""

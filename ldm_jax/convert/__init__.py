"""Other people's files: safe reading and writing of tensors, without torch."""

"""One module per library, each with a class `Library`, imported in that library's environment."""

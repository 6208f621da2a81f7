"""Models on the devices: what a model draws by default, its programs, drawing and encoding."""

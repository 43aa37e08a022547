"""The ground floor: errors, files, images, declared config keys, how programs end. It imports no room above it."""

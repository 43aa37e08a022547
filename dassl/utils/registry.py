from .tools import check_availability


class Registry:
    """A table from names to classes or functions.

    Args:
        name: config key whose values the names are, such as ``DATASET.NAME``; messages use it.
    """

    def __init__(self, name):
        self._name = name
        self._objects = {}

    def register(self, obj=None):
        """Enter ``obj`` under its ``__name__`` and return it; ``@REGISTRY.register()`` decorates.

        Raises:
            ValueError: the name is taken.
        """
        if obj is None:
            return self.register
        if obj.__name__ in self._objects:
            raise ValueError(f'"{obj.__name__}" is already registered as {self._name}: rename it')
        self._objects[obj.__name__] = obj
        return obj

    def get(self, name):
        """Return what was registered as ``name``; a ValueError lists the registered names."""
        check_availability(name, self.registered_names(), self._name)
        return self._objects[name]

    def registered_names(self):
        return list(self._objects)

from common.errors import UserError


class Registry:
    """A table from names to classes or functions, filled by decorators.

    ::

        MODELS = Registry("MODEL")

        @MODELS.register()
        class Net: ...

        MODELS.get("Net")
    """

    def __init__(self, name):
        self._name = name
        self._objects = {}

    def register(self, obj=None, force=False):
        """Enter ``obj`` under its ``__name__``, directly or, without ``obj``, as a decorator.

        Raises:
            ValueError: the name is taken and ``force`` is off.
        """
        if obj is None:

            def decorator(decorated):
                self.register(decorated, force)
                return decorated

            return decorator
        name = obj.__name__
        if name in self._objects and not force:
            raise ValueError(f'"{name}" is already in the registry {self._name}: rename it or set force')
        self._objects[name] = obj
        return None

    def get(self, name):
        """Return what was registered as ``name``; ValueError with the known names otherwise."""
        if name not in self._objects:
            raise UserError(
                f'"{name}" is not in the registry {self._name}, which has {self.registered_names()}: '
                "correct the name or import the module that registers it"
            )
        return self._objects[name]

    def registered_names(self):
        """Return the list of registered names."""
        return list(self._objects)

from .build import NETWORK_REGISTRY, build_network

from .build import NETWORK_REGISTRY, build_network
from .simple_net import SimpleNet

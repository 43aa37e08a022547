from .transforms import AVAI_CHOICES, build_transform

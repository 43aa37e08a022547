from .accuracy import compute_accuracy
from .distance import compute_distance_matrix

"""One run on several processes, started by torchrun: each encodes its share of the prompts and of the images.

    torchrun --standalone --nproc_per_node 2 train.py ...

Class features are gathered, so every process has the same logits and the same loss. What is learned gets the sum of all
shares' gradients (as in Megatron-LM's tensor parallelism, Shoeybi et al., 2019), so every process takes the same step,
and no method needs to know. The first process owns the run's folder; the others work in a temporary one.
"""

import contextlib
import datetime
import os
import os.path as osp
import tempfile

import torch
from torch import distributed as dist

from dassl.errors import UserError
from runs.folder import RESUME_FILE

# One process may wait for another run's features, or for the share of a slower one; the end of one is noticed anyway.
PATIENCE = datetime.timedelta(days=7)


def world_size():
    """Number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextlib.contextmanager
def joined(cfg):
    """Meet the other processes that torchrun has started, if it has. All but the first print nothing on stdout.

    Their `OUTPUT_DIR` becomes a temporary folder, and they go on from the resume file of the first one's.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    cuda = torch.cuda.is_available() and cfg.USE_CUDA
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with contextlib.ExitStack() as stack:
        if os.environ["RANK"] != "0":
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            cfg.defrost()
            if not cfg.RESUME and osp.isfile(osp.join(cfg.OUTPUT_DIR, RESUME_FILE)):
                cfg.RESUME = cfg.OUTPUT_DIR
            cfg.OUTPUT_DIR = folder
            cfg.freeze()
        with meeting():
            if not dist.is_initialized():
                dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
                stack.callback(dist.destroy_process_group)
            dist.barrier()  # the others have seen whether there is a resume file before the first one works
        yield


@contextlib.contextmanager
def meeting():
    """In which the processes exchange something.

    Raises:
        UserError: another one has ended.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError("another process of this run has ended, see what it says; the same command goes on from the "
                        "last saved epoch") from error


def any_process(flag):
    """Whether `flag` is true in a process of the run."""
    if world_size() == 1:
        return flag
    found = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    with meeting():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def sharers():
    """(place, number) of this process among those of the run that share files: all if they are on one machine."""
    if world_size() == 1 or os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def of_first(make):
    """What `make()` returns in the first of `sharers`, which alone calls it; it must be fit for pickle."""
    place, count = sharers()
    found = [make() if place == 0 else None]
    if count > 1:
        with meeting():
            dist.broadcast_object_list(found)
    return found[0]


def of_all(own):
    """List of every sharer's `own`, which must be fit for pickle, in their order; all have come so far."""
    found = [own]
    if sharers()[1] > 1:
        found *= sharers()[1]
        with meeting():
            dist.all_gather_object(found, own)
    return found


def own_items(n, size):
    """Slice of n items that this process takes: whole batches of `size`, as many as any other sharer but for one."""
    (place, count), batches = sharers(), -(-n // size)
    return slice(*(min(n, size * (batches * k // count)) for k in (place, place + 1)))


def shares(costs, count):
    """Sizes of `count` consecutive shares, none empty, of about the same cost; `costs` (n,) with n >= count."""
    total = costs.cumsum(0)
    wanted = total[-1] * torch.arange(1, count, device=costs.device) / count
    cuts = [0]
    for k, cut in enumerate((torch.searchsorted(total.double(), wanted.double()) + 1).tolist(), 1):
        cuts.append(min(max(cut, cuts[-1] + 1), len(costs) - count + k))
    return tuple(b - a for a, b in zip(cuts, [*cuts[1:], len(costs)]))


def gathered(own, sizes):
    """Rows (sum of sizes, dim) of all processes, in their order, of each one's `own` (its size, dim).

    All processes compute the same of them, so the gradient of `own` is that of its rows here.
    """
    return _Gathered.apply(own, sizes)


def summed_in_backward(x):
    """`x`, of which every process uses a share: its gradient is the sum of theirs."""
    return _SummedInBackward.apply(x)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own, sizes):
        ctx.sizes = sizes
        padded = own.new_zeros(max(sizes), own.shape[1])  # gloo wants the same size of all
        padded[:len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with meeting():
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes)])

    @staticmethod
    def backward(ctx, grad):
        return grad.split(ctx.sizes)[dist.get_rank()], None


class _SummedInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        with meeting():
            dist.all_reduce(grad)
        return grad

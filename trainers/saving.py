"""What a trainer saves and loads: checkpoints of its parts, and the resume file."""

from common.digests import digest_of_tensors
from common.errors import MissingFile, NotFinite, UserError
from runs.checkpoints import best_or_last, check_names, load_part, name_tasks, read_parts, save, save_parts
from runs.folder import RESUME_FILE, RunFolder

# What a resume file holds.
RESUME_KEYS = {"identity": dict, "epoch": int, "parts": dict, "best": (dict, type(None)), "optimizer": dict,
               "scheduler": dict, "scaler": (dict, type(None)), "elapsed": float}


class SavesParts:
    """Base of `MultiTaskTrainer`, whose attributes it reads.

    Attributes:
        saved: {part: module}. optim, sched, scaler: what steps them, or None.
        tasks, identity, cfg, folder, elapsed, best: of the run.
    """

    def learned(self):
        """{part: its values}, copies on the CPU."""
        return {part: {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
                for part, module in self.saved.items()}

    def common_state(self):
        """What every part's checkpoint holds."""
        return {"identity": self.identity, "tasks": name_tasks(self.tasks), "optimizer": None, "scheduler": None}

    def part_states(self, values, **state):
        return {part: {"state_dict": values[part], **state} for part in values}

    def save_model(self, epoch):
        """Write the checkpoint of every part after `epoch` epochs; the optimizer's state under one that it steps."""
        states = self.part_states(self.learned())
        stepped = [part for part in self.parts() if any(p.requires_grad for p in self.saved[part].parameters())]
        states[stepped[0]] |= {"optimizer": self.optim.state_dict(), "scheduler": self.sched.state_dict()}
        save_parts(self.cfg.OUTPUT_DIR, states, f"model.pth.tar-{epoch}", {**self.common_state(), "epoch": epoch})

    def save_resume_file(self, epoch):
        """All that the next epoch starts from, in one file, so that a crash can't mix two epochs."""
        save({"identity": self.identity, "epoch": epoch, "parts": self.learned(), "best": self.best,
              "optimizer": self.optim.state_dict(), "scheduler": self.sched.state_dict(),
              "scaler": self.scaler.state_dict() if self.scaler else None, "elapsed": self.elapsed},
             self.folder.resume_path)

    def resume(self):
        """Restore what the resume file holds, if there is one.

        Returns:
            (number of epochs that are done, the best model so far or None).

        Raises:
            UserError: the file is damaged, or another run's. MissingFile: `--resume` names a folder without it.
        """
        folder = RunFolder(self.cfg.RESUME) if self.cfg.RESUME else self.folder
        state = folder.unfinished(RESUME_KEYS, self.identity) if self.trained else None
        if state is None:
            if self.cfg.RESUME and self.trained:
                raise MissingFile(f"--resume {self.cfg.RESUME}: there is no {RESUME_FILE}, so no unfinished run to go "
                                  "on from: check the folder, or leave the flag out")
            return 0, None
        for part, module in self.saved.items():
            load_part(module, state["parts"].get(part, {}), folder.resume_path)
        self.optim.load_state_dict(state["optimizer"])
        self.sched.load_state_dict(state["scheduler"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.elapsed = state["elapsed"]
        print(f"Resuming from {folder.resume_path} (epoch = {state['epoch']})")
        return state["epoch"], state["best"]

    def load_model(self, directory, which=None):
        """Load every part of a run's model.

        A context that is not tied to tasks or classes serves any others; else the run must have those of training
        (published checkpoints have no names: only the number is checked).

        Args:
            which: "best", "last" or the number of an epoch; None: the best if the run kept it, else the last.

        Raises:
            MissingFile, UserError: as `read_parts`, `check_names` and `load_part`.
        """
        found = read_parts(directory, self.saved, which or best_or_last(directory, self.saved))
        for part, (path, checkpoint) in found.items():
            print(f'Loading weights to {part} from "{path}" (epoch = {checkpoint["epoch"]})')
            if "tasks" in checkpoint:
                check_names(checkpoint["tasks"], name_tasks(self.tasks), self.ties(), path)
            try:
                load_part(self.saved[part], checkpoint["state_dict"], path)
            except NotFinite:
                raise
            except UserError as error:
                hints = [f"; {option} ties each context to a {kind} of training" for option, kind in self.ties()]
                raise UserError(f"{error}{''.join(hints)}") from None

    def digest_of_learned(self):
        """What identifies the values of all parts."""
        return digest_of_tensors({f"{part}.{name}": value for part, values in self.learned().items()
                                  for name, value in values.items()})

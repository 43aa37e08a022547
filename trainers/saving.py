"""A trainer saves and loads checkpoints of its parts, and the resume file."""

from common.digests import digest_of_state, digest_of_tensors
from common.errors import MissingFile, NotFinite, UserError
from runs.checkpoints import best_or_last, check_names, load_part, name_tasks, read_parts, save, save_parts
from runs.folder import RESUME_FILE, RunFolder


class SavesParts:
    """Base of `MultiTaskTrainer`, whose attributes it reads.

    Attributes:
        saved: {part: module}. optimizer, scheduler, scaler: what steps them, or None.
        tasks, identity, cfg, folder, elapsed, best: of the run.
    """

    optimizer = scheduler = None  # until `build_optimizer`

    def learned(self):
        """{part: its values}, copies on the CPU."""
        return {part: {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
                for part, module in self.saved.items()}

    def set_learned(self, values, source="what this run has learned"):
        """Give the parts the `values` that `learned` returned; errors name their `source`."""
        for part, module in self.saved.items():
            load_part(module, values.get(part, {}), source)

    def save_model(self, epoch, name="", **figures):
        """Write the checkpoint of every part after `epoch` epochs.

        Args:
            name: of the files; by default that of the epoch. figures: what they hold besides.
        """
        self.folder.check_own()
        states = {part: {"state_dict": values} for part, values in self.learned().items()}
        save_parts(self.cfg.OUTPUT_DIR, states, name or f"model.pth.tar-{epoch}", {
            "identity": self.identity, "tasks": name_tasks(self.tasks), "optimizer": None, "scheduler": None,
            "epoch": epoch, **figures})

    def save_resume_file(self, epoch):
        """All that the next epoch starts from, in one file, so that a crash can't mix two epochs."""
        self.folder.check_own()
        state = {"identity": self.identity, "epoch": epoch, "parts": self.learned(), "best": self.best,
                 "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
                 "scaler": self.scaler.state_dict() if self.scaler else None, "elapsed": self.elapsed}
        save({**state, "digest": digest_of_state(state)}, self.folder.resume_path)

    def unfinished(self):
        """The content of the resume file, None where there is none.

        Raises:
            UserError: the file is damaged, or another run's. MissingFile: `--resume` names a folder without it.
        """
        folder = RunFolder(self.cfg.RESUME) if self.cfg.RESUME else self.folder
        state = folder.unfinished(self.identity)
        if state is None and self.cfg.RESUME:
            raise MissingFile(f"--resume {self.cfg.RESUME}: there is no {RESUME_FILE}, so no unfinished run to go on "
                              "from: check the folder, or leave the flag out")
        if state:
            print(f"Resuming from {folder.resume_path} (epoch = {state['epoch']})")
        return state

    def restore_parts(self, state):
        """Go on with the learned values of a resume file's `state`."""
        self.set_learned(state["parts"], self.folder.resume_path)
        self.best, self.elapsed = state["best"], state["elapsed"] + self.elapsed

    def restore_optimizer(self, state):
        """Go on with the optimizer and scheduler of a resume file's `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])

    def load_model(self, directory, which=None):
        """Load every part of a run's model.

        What is not tied to tasks or classes serves any others, and where none of the run's tasks was trained on,
        `shared_parts` do; else the run must have those of training (published checkpoints have no names: only the
        number is checked).

        Args:
            which: "best", "last" or the number of an epoch; None: the best if the run kept it, else the last.

        Raises:
            MissingFile, UserError: as `read_parts`, `check_names` and `load_part`.
        """
        ties = {self.name_of(option): kind for option, kind in self.specific(self.options).items()}
        found = read_parts(directory, self.saved, which or best_or_last(directory, self.saved))
        shared = self.shared_parts(self.options)
        here = {task.name for task in self.tasks}
        trained = {task["name"] for _, checkpoint in found.values() for task in checkpoint.get("tasks", ())}
        if shared and trained and not here & trained:
            print(f"None of these tasks was trained on: of what was learned only {', '.join(shared)} reads them")
            found, ties = {part: found[part] for part in shared}, {}
        for part, (path, checkpoint) in found.items():
            print(f'Loading weights to {part} from "{path}" (epoch = {checkpoint["epoch"]})')
            if "tasks" in checkpoint:
                check_names(checkpoint["tasks"], name_tasks(self.tasks), ties, path)
            try:
                load_part(self.saved[part], checkpoint["state_dict"], path)
            except NotFinite:
                raise
            except UserError as error:
                hints = [f"; {who} learns something of its own for every {kind} of training"
                         for who, kind in ties.items()]
                raise UserError(f"{error}{''.join(hints)}") from None

    def digest_of_learned(self):
        """A digest of the values of all parts."""
        return digest_of_tensors({f"{part}.{name}": value for part, values in self.learned().items()
                                  for name, value in values.items()})

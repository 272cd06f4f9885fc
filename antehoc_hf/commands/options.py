"""Options as typed dataclasses, and the one parser that reads them from a command line. Imports nothing heavy."""

import argparse
import dataclasses
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from antehoc_hf.commands import COMMANDS
from antehoc_hf.commands.errors import UsageError

T = TypeVar("T")
_WIDTH, _NAME_WIDTH = 100, 34

# What people type → the options that they mean, as far as a command has them; none where there is nothing like it.
_MEANT = {
    word: options.split()
    for words, options in (
        ("lr lr_backbone", "learning_rate"),
        ("map_lr", "interpretation_learning_rate"),
        ("bs batch batchsize batch_size", "per_device_train_batch_size batch_size"),
        ("wd decay", "weight_decay"),
        ("j workers num_workers", "dataloader_num_workers workers"),
        ("epoch epochs num_epochs n_epochs", "num_train_epochs"),
        ("iterations iters num_steps steps", "max_steps"),
        ("device cpu no_cuda", "use_cpu"),
        ("gpu gpus cuda devices num_classes n_classes path", ""),
        ("output out out_dir outdir save_dir save_path log_dir logdir dest", "output_dir output"),
        ("data dataset data_dir data_path data_root root train_dir", "dataset_name images"),
        ("model arch architecture network net encoder", "backbone source"),
        ("img_size imgsz resolution input_size size", "image_size"),
        ("img image input inputs file files folder", "images folder"),
        ("weights", "pretrained pretrained_file"),
        ("resume", "resume_from_checkpoint"),
        ("checkpoint ckpt", "resume_from_checkpoint model"),
        ("scheduler schedule lr_scheduler", "lr_scheduler_type"),
        ("optimizer opt", "optim"),
        ("amp half precision mixed_precision", "bf16 fp16"),
        ("log logger wandb tensorboard", "report_to"),
        ("aug augment transforms", "augmentation"),
        ("accum grad_accum", "gradient_accumulation_steps"),
        ("label labels", "label_column"),
        ("val val_split", "validation_split"),
        ("val_fraction val_ratio", "validation_fraction"),
        ("limit subset num_samples", "max_train_samples max_eval_samples max_images"),
        ("repo repo_name name hub_id", "repo_id hub_model_id"),
        ("force", "overwrite_run overwrite"),
        ("method methods", "explainers explainer"),
    )
    for word in words.split()
}


def option(
    default: Any = MISSING, help: str = "", *, everyday: bool = False, positional: str = "", short: str = ""
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value where none is given; left out: the option is required. A list is copied.
        help (`str`): what `--help` says. A field without a help text is not on the command line.
        everyday (`bool`): stands on the first page of a command with so many options that the others are on a second.
        positional (`str`): a name, such as `IMAGE`: words before the first option are its value.
        short (`str`): a second name, such as `-o`.
    """
    metadata = {"help": help, "everyday": everyday, "positional": positional, "short": short}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """An option as the parser knows it: a field of a dataclass, its name on the command line, its group's title."""

    field: dataclasses.Field[Any]
    name: str
    group: str
    kind: Any
    everyday: bool

    @property
    def help(self) -> str:
        return str(self.field.metadata.get("help", ""))

    @property
    def default(self) -> Any:
        """Its default; `MISSING` where it is required."""
        factory = self.field.default_factory
        return self.field.default if factory is MISSING else factory()


def options_of(cls: type) -> list[Option]:
    """The options that a dataclass declares: its fields with a help text, of a type that a command line can give.

    An option has the field's name, or that of its metadata's `"flag"`, or that of an object with a `name` which
    `Annotated` adds to its type. With `everyday = True` in the class all of its options are on the first page.
    """
    title = getattr(cls, "group", None) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__)
    found = []
    for declared in dataclasses.fields(cls):
        if declared.init and declared.metadata.get("help"):
            kind = declared.type
            if isinstance(kind, str):
                kind = get_type_hints(cls, include_extras=True)[declared.name]
            if _reader(kind) is not None:
                everyday = getattr(cls, "everyday", False) or declared.metadata.get("everyday", False)
                found.append(Option(declared, _flag_name(declared, kind), title, kind, everyday))
    return found


def _flag_name(declared: dataclasses.Field[Any], hint: Any) -> str:
    names = (getattr(extra, "name", None) for extra in getattr(hint, "__metadata__", ()))
    return declared.metadata.get("flag") or next((name for name in names if name), declared.name)


def show(text: str) -> None:
    """Prints a help text; whoever reads it may stop before its end, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class OptionParser(argparse.ArgumentParser):
    """Dataclasses as options; a mistake raises one sentence.

    An option that several dataclasses declare stands there once, as the first of them has it.

    Args:
        groups: the dataclasses.
        prog (`str`): the command, such as `antehoc explain`; what it does and an example stand before the options.
        epilog (`str`): what stands after them.
        defaults: values that hold in place of the dataclasses' own.
    """

    def __init__(self, *groups: type, prog: str, epilog: str = "", defaults: Mapping[str, Any] | None = None) -> None:
        super().__init__(prog, epilog=epilog, allow_abbrev=False, add_help=False)
        self.options: dict[str, Option] = {}
        self.defaults = dict(defaults or {})
        for declared in (declared for group in groups for declared in options_of(group)):
            if declared.name not in self.options:
                self.options[declared.name] = declared
                names = [name for name in (declared.field.metadata.get("short"), f"--{declared.name}") if name]
                arguments = {**(_reader(declared.kind) or {}), "default": argparse.SUPPRESS}
                if declared.field.metadata.get("choices"):
                    arguments["choices"] = declared.field.metadata["choices"]
                self.add_argument(*names, dest=declared.name, **arguments)

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """Option → value, of those that the command line gives and no others.

        Raises:
            UsageError: for an unknown option or a value of the wrong type.
            SystemExit: after `--help`.
        """
        values, unknown = self.read_known(argv)
        if unknown:
            raise UsageError(self.unknown(unknown[0]))
        return values

    def read_known(self, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The same, with the words that belong to no option."""
        for word, everything in (("-h", False), ("--help", False), ("--help-all", True)):
            if word in argv:
                show(self.help_text(everything))
                raise SystemExit(0)
        positional = self._positional()
        words = [_underscored(word) for word in argv]
        first = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
        several = positional is not None and "nargs" in (_reader(positional.kind) or {})
        if positional is not None and first:
            leading = [f"--{positional.name}", *words[:first]] if several else [f"--{positional.name}={words[0]}"]
            words = [*leading, *(words[first:] if several else words[1:])]
        namespace, unknown = self.parse_known_args(words)
        values = vars(namespace)
        # Words after an option that takes one value: they can be nothing else.
        alone = unknown and (several or len(unknown) == 1) and not any(word.startswith("-") for word in unknown)
        if positional is not None and positional.name not in values and alone:
            values[positional.name], unknown = (unknown if several else unknown[0]), []
        return values, unknown

    def parse(self, argv: Sequence[str], *classes: type[T]) -> list[T]:
        """One instance of each dataclass; see [`OptionParser.read`] for the errors."""
        values = self.read(argv)
        return [self.build(cls, values) for cls in classes]

    def build(self, cls: type[T], values: Mapping[str, Any], **others: Any) -> T:
        """An instance of a dataclass from the values of options.

        Raises:
            UsageError: if one is required and missing.
        """
        given = {}
        for declared in options_of(cls):
            if declared.name in values:
                given[declared.field.name] = values[declared.name]
            elif declared.name in self.defaults:
                given[declared.field.name] = self.defaults[declared.name]
            elif declared.default is MISSING:
                place = declared.field.metadata.get("positional")
                name = f"{place} (or --{declared.name})" if place else f"--{declared.name}"
                raise UsageError(f"{name} is missing: {declared.help[:1].lower()}{declared.help[1:]}")
        return cls(**{**given, **others})

    def error(self, message: str) -> NoReturn:
        name, _, rest = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and rest:
            raise UsageError(f"{name.split('/')[-1]}: {rest}.")
        raise UsageError(f"{message[:1].upper()}{message[1:]}.")

    def unknown(self, word: str, further: Iterable[str] = ()) -> str:
        """The sentence about a word that belongs to no option; `further` are names of others than the parser's."""
        if not word.startswith("-"):
            return f"{word!r} belongs to no option: options are written --name value."
        flag = word.split("=")[0]
        return f"There is no option {flag!r}: {self.near(flag.lstrip('-'), further, prefix='--')}"

    def near(self, name: str, further: Iterable[str] = (), prefix: str = "") -> str:
        """A question for the option that was meant: by the word that others have for it, one of whose words begin
        with it, or one that is spelled much like it.
        """
        everyday = [known for known, declared in self.options.items() if declared.everyday]
        names = sorted([*self.options, *further], key=lambda known: (known not in everyday, len(known), known))
        near = [known for known in _MEANT.get(name, ()) if known in names]
        if name not in _MEANT:
            near = [known for known in names if f"_{name}" in f"_{known}"][:3]
            near = near or list(dict.fromkeys(get_close_matches(name, names, n=3, cutoff=0.7)))
        if not near:
            everything = " --help-all" if self._has_two_pages() else " --help"
            return f"`{self.prog}{everything}` lists the options."
        return f"did you mean {' or '.join(prefix + option for option in near)}?"

    # -- help ---------------------------------------------------------------------------------------------------

    def help_text(self, everything: bool = False) -> str:
        """What `--help` prints, or with `everything` `--help-all`."""
        everything = everything or not self._has_two_pages()
        positional = self._positional()
        usage = [self.prog, *([positional.field.metadata["positional"]] if positional is not None else [])]
        needed = [one.name for one in self.options.values() if one.default is MISSING and one is not positional]
        usage += [f"--{name} {name.upper()}" for name in needed]
        lines = [f"usage: {' '.join(usage)} [options]", ""]
        about, example = COMMANDS[self.prog.split()[1]]
        lines += [*textwrap.wrap(f"{about[:1].upper()}{about[1:]}.", _WIDTH), f"Example: antehoc {example}", ""]
        title = ""
        for declared in sorted(self.options.values(), key=lambda one: one is not positional):
            if not (everything or declared.everyday):
                continue
            if everything and declared.group != title:
                title = declared.group
                lines += [*([] if lines[-1] == "" else [""]), f"{title}:"]
            lines += self._described(declared)
        if not everything:
            lines += ["", "--help-all lists every option."]
        if self.epilog:
            lines += ["", *textwrap.wrap(self.epilog, _WIDTH, break_on_hyphens=False)]
        return "\n".join(lines)

    def _described(self, declared: Option) -> list[str]:
        metadata = declared.field.metadata
        default = self.defaults.get(declared.name, declared.default)
        if declared.default is MISSING and not metadata.get("positional"):
            note = " (required)"
        elif default in (MISSING, None, "", False) or default == []:
            note = ""
        else:
            note = f" (default: {_as_text(default)})"
        name = ", ".join([*([metadata["short"]] if metadata.get("short") else []), f"--{declared.name}"])
        if metadata.get("positional"):
            name = f"{metadata['positional']}, {name}"
        text = textwrap.wrap(
            declared.help + note, _WIDTH - _NAME_WIDTH, break_long_words=False, break_on_hyphens=False
        )
        head = f"  {name} ".ljust(_NAME_WIDTH)
        if len(head) > _NAME_WIDTH:
            return [head.rstrip(), *(" " * _NAME_WIDTH + line for line in text)]
        return [head + text[0], *(" " * _NAME_WIDTH + line for line in text[1:])]

    def _positional(self) -> Option | None:
        return next((one for one in self.options.values() if one.field.metadata.get("positional")), None)

    def _has_two_pages(self) -> bool:
        return any(declared.everyday for declared in self.options.values())


def as_words(name: str, value: Any) -> list[str]:
    """An option and its value, as a YAML file has them, as the words of a command line."""
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}={_as_text(value)}"]


def json_object(text: str) -> dict[str, Any]:
    """A JSON object given as text.

    Raises:
        argparse.ArgumentTypeError: if it is not one.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
        raise argparse.ArgumentTypeError(f"this is not JSON ({reason}): {text}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'it must be a JSON object such as {{"name": 1}}, not {text}')
    return value


def _boolean(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"it must be true or false, not {text!r}")
    return words[text.lower()]


def _name_or_object(text: str) -> str | dict[str, Any]:
    return json_object(text) if text.lstrip().startswith("{") else text


def _reader(kind: Any) -> dict[str, Any] | None:
    """How argparse reads a value of this type; None if a command line cannot give one."""
    while hasattr(kind, "__metadata__"):  # Annotated
        kind = kind.__origin__
    if get_origin(kind) in (Union, UnionType):
        return _reader_of_union([part for part in get_args(kind) if part is not type(None)])
    if get_origin(kind) is Literal:
        return {"choices": [str(choice) for choice in get_args(kind)]}
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return {**(_reader(item) or {}), "nargs": "*"}
    if kind is bool:
        return {"type": _boolean, "nargs": "?", "const": True}
    if kind is dict or get_origin(kind) is dict:
        return {"type": json_object}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"choices": [str(member.value) for member in kind]}
    return {"type": kind} if kind in (str, int, float) else None


def _reader_of_union(parts: Sequence[Any]) -> dict[str, Any] | None:
    if len(parts) == 1:
        return _reader(parts[0])
    lists = [part for part in parts if get_origin(part) is list]
    if lists:
        return {"type": str, "nargs": "*"}
    if any(part is dict or get_origin(part) is dict for part in parts):
        return {"type": _name_or_object} if any(part is str for part in parts) else {"type": json_object}
    choices = [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]
    return _reader(choices[0]) if choices else {"type": str}


def _underscored(word: str) -> str:
    """`--learning-rate=0.1` is `--learning_rate=0.1`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _as_text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(value)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

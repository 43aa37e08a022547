"""Text towers of open_clip models whose layout is not CLIP's, and the tokenizers that prompts are made with.

A prompt consists of token ids: `start`, its content (words, and places for context vectors), and the ids that `close`
returns. CLIP's tokenizer ends a prompt with [EOT]. Those of other towers make rows of full length, whose padding the
tower may see.
"""

from pathlib import Path

import huggingface_hub
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, _tokenizer as clip_tokenizer
from torch import nn

from .files import ClipError, UnusableModel, one_line

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")  # a tokenizer of transformers has one or both
LEAD = "x"  # a word that stands before others in the place of a context


class ClipTokenizer:
    """CLIP's tokenizer for prompts: start-of-text, the content, end-of-text, without padding.

    Attributes:
        tokenizer: open_clip's; texts -> rows of ids.
        context_length: positions of the text tower.
        vocab_size: ids are below.
        start: ids before the content.
        longest: most ids that the content may have.
        placeholder: id that stands where a context vector goes.
    """

    placeholder = 0

    def __init__(self, context_length=77):
        self.tokenizer = clip_tokenizer
        self.context_length = context_length
        self.vocab_size = clip_tokenizer.vocab_size
        self.start = [clip_tokenizer.sot_token_id]
        self.longest = context_length - 2

    def __call__(self, texts):
        """Return tokens (n, context_length) of texts as open_clip makes them; it cuts long texts."""
        return self.tokenizer(texts, self.context_length)

    def encode(self, text, follows=False):
        """Return the ids of a text alone; `follows` says that words or a context stand before it."""
        return self.tokenizer.encode(text)

    def close(self, n):
        """Return the ids that stand after a content of n ids."""
        return [self.tokenizer.eot_token_id]

    @property
    def size(self):
        """Number of words; ids that stand for a word are below."""
        return self.vocab_size

    def word(self, token):
        """Return an id as text, with a hyphen if its word goes on; a piece of a character as the tokenizer has it."""
        text = self.tokenizer.decode([token])
        if "\ufffd" in text or token in self.tokenizer.all_special_ids:
            return self.tokenizer.decoder[token]
        return text.strip() if text.endswith(" ") else f"{text}-"


class FramedTokenizer(ClipTokenizer):
    """An open_clip tokenizer for prompts of full length. It finds out what stands around a text from sample texts.

    Args:
        tokenizer: open_clip's `SimpleTokenizer` or `HFTokenizer`.
        vocab_size: of the text tower.

    Raises:
        UnusableModel: the tokenizer does not put the same before and after all texts, or does not fit the vocabulary.
    """

    def __init__(self, tokenizer, vocab_size):
        self.tokenizer, self.context_length, self.vocab_size = tokenizer, tokenizer.context_length, vocab_size
        samples = [LEAD, f"{LEAD} dog", f"{LEAD} dog " * self.context_length]
        contents = [self.encode(text) for text in samples]
        rows = self(samples).tolist()
        lead = contents[0]
        n = len(lead)
        starts = [i for i in range(self.context_length) if rows[0][i:i + n] == lead]
        if not starts or contents[1][:n] != lead:
            raise UnusableModel(f"its tokenizer reads {samples[1]!r} otherwise than word by word")
        self.placeholder = lead[0]
        self.start, rest = rows[0][:starts[0]], rows[0][starts[0] + n:]
        # The padding is the longest run of one id after the content. It may be the id that ends a text, too.
        runs = [i for i in range(len(rest)) if i == 0 or rest[i] != rest[i - 1]] + [len(rest)]
        length, begin = max((end - begin, begin) for begin, end in zip(runs, runs[1:]))
        self.before, self.padding, self.after = rest[:begin], rest[begin:begin + 1], rest[begin + length:]
        self.room = n + length  # ids of content and padding
        same = (a == b for a, b in zip(contents[2], rows[2][starts[0]:]))
        self.longest = next((i for i, equal in enumerate(same) if not equal), 0)
        for content, row in zip(contents, rows):
            content = content[:self.longest]
            if self.start + content + self.close(len(content)) != row:
                raise UnusableModel("its tokenizer does not put the same before and after every text, or pads before "
                                    "it")
        largest = tokenizer.vocab_size - 1 if isinstance(tokenizer, SimpleTokenizer) else max(map(max, rows))
        if largest >= vocab_size:
            raise UnusableModel(f"its tokenizer has the id {largest}, but its vocabulary a size of {vocab_size}")

    def encode(self, text, follows=False):
        if follows:  # words are often tokenized otherwise at the beginning
            lead, ids = self.encode(LEAD), self.encode(f"{LEAD} {text}")
            if ids[:len(lead)] != lead:
                raise ClipError(f"the tokenizer makes one of the beginning of {text!r} and the word before it, so that "
                                "no context can stand there")
            return ids[len(lead):]
        if isinstance(self.tokenizer, SimpleTokenizer):
            return self.tokenizer.encode(text)
        text = self.tokenizer.clean_fn(text)
        return self.tokenizer.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @property
    def size(self):
        own = isinstance(self.tokenizer, SimpleTokenizer)
        return min(self.vocab_size, self.tokenizer.vocab_size if own else len(self.tokenizer.tokenizer))

    def close(self, n):
        return self.before + self.padding * (self.room - n) + self.after

    def word(self, token):
        if isinstance(self.tokenizer, SimpleTokenizer):
            return super().word(token)
        return str(self.tokenizer.tokenizer.convert_ids_to_tokens(token))  # None where the vocabulary has a gap


class TextTower(nn.Module):
    """An open_clip text tower of any layout, frozen, which can read vectors in place of some tokens.

    Args:
        module: open_clip's `TextTransformer` or `HFTextEncoder`.
        difference: what distinguishes it from CLIP's, as "has no causal attention mask".

    Raises:
        UnusableModel: it has no token embedding.
    """

    def __init__(self, module, difference):
        super().__init__()
        module.output_tokens = False
        self.module = module
        self.difference = difference
        try:
            self.token_embedding.embedding_dim
        except (AttributeError, NotImplementedError) as error:
            raise UnusableModel("its text tower has no token embedding that a context could stand beside") from error
        self.output_dim = module.output_dim  # without a projection the width, too

    @property
    def token_embedding(self):
        if isinstance(self.module, HFTextEncoder):
            return self.module.transformer.get_input_embeddings()
        return self.module.token_embedding

    @property
    def dtype(self):
        """dtype of the matrices."""
        transformer = self.module.transformer
        return transformer.dtype if isinstance(self.module, HFTextEncoder) else transformer.get_cast_dtype()

    def forward(self, tokens, places=None, vectors=None):
        """Return features (n, output_dim) of tokens (n, L).

        Args:
            places: (row, position), two tensors (k,): the places where `vectors` replace the token's.
            vectors: (k, width), as the token embedding gives them, before positions are added.
        """
        if places is None:
            return self.module(tokens)
        # The module itself embeds the tokens, which also decide on masks, positions and pooling.
        hook = self.token_embedding.register_forward_hook(
            lambda module, args, embedded: embedded.index_put(places, vectors.to(embedded.dtype)))
        try:
            return self.module(tokens)
        finally:
            hook.remove()

    def cast(self, dtype):
        """Cast the matrices, in place, to torch.float16 or torch.bfloat16; open_clip's norms and embedding stay."""
        cast_all_but(() if isinstance(self.module, HFTextEncoder) else (nn.LayerNorm, nn.Embedding), self.module, dtype)

    def extra_repr(self):
        return self.difference


def cast_all_but(kept, module, dtype):
    """Cast, in place, the floating-point tensors of all parts of a module but those of the types `kept`."""
    for part in module.modules():
        if not isinstance(part, kept):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)


def make_tokenizer(text, folder=None, cache_dir=None):
    """Make the `FramedTokenizer` of a text tower.

    Args:
        text: its `CLIPTextCfg`.
        folder: of the model; a tokenizer in it goes before that of the Hugging Face Hub. None: no folder.
        cache_dir: for downloads from the Hub; default: the Hub's own.

    Raises:
        UnusableModel: it can't be read, or can't be used for prompts.
        ClipError: it can't be fetched.
    """
    options = text.tokenizer_kwargs or {}
    if not text.hf_tokenizer_name:
        return FramedTokenizer(SimpleTokenizer(context_length=text.context_length, **options), text.vocab_size)
    if folder is None or not any((folder / file).is_file() for file in TOKENIZER_FILES):
        folder = named_folder(text.hf_tokenizer_name, "tokenizer", TOKENIZER_FILES, cache_dir)
    try:
        tokenizer = HFTokenizer(str(folder), context_length=text.context_length, tokenizer_mode=text.tokenizer_mode,
                                local_files_only=True, **options)
    except Exception as error:  # transformers', tokenizers' and sentencepiece's own
        raise UnusableModel(f"its tokenizer in {folder} could not be read ({one_line(error)})") from error
    return FramedTokenizer(tokenizer, text.vocab_size)


def named_folder(name, what, files, cache_dir=None):
    """Return the folder `name` if there is one, else `hub_folder` of a repository with one of `files`."""
    return Path(name) if Path(name).is_dir() else hub_folder(name, what, files, cache_dir=cache_dir)


def hub_folder(name, what, *needed, cache_dir=None):
    """Return the folder of the Hugging Face repository `name`, fetched unless it is cached.

    Args:
        what: name of the needed files in the message.
        needed: tuples of file names; the folder has the first file of each that the repository has.

    Raises:
        ClipError: it is not in the cache and can't be fetched.
    """
    patterns = ["*.json", "*.txt", "*.model"]  # a repository may have weights, too, which are fetched if needed
    try:
        cached = [[path for file in files
                   if isinstance(path := huggingface_hub.try_to_load_from_cache(name, file, cache_dir=cache_dir), str)]
                  for files in needed]
        if all(cached):
            return Path(cached[0][0]).parent
        # a download itself would wait for minutes for a dead network
        there = {file.rfilename for file in huggingface_hub.model_info(name, timeout=2).siblings}
        chosen = [next((file for file in files if file in there), files[0]) for files in needed]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*patterns, *chosen], cache_dir=cache_dir))
    except Exception as error:  # the Hub's, httpx's and the operating system's
        patterns += [file for files in needed for file in files if not file.endswith(".json")]
        raise ClipError(
            f"it needs the {what} {name} of huggingface.co, which is not in the cache and could not be fetched "
            f"({one_line(error)}); fetch it with: hf download {name} --include {' '.join(map(repr, patterns))}, or put "
            "its files into the folder of a local-dir: model") from error

"""The language of a file, derived from its name."""

from __future__ import annotations

from posixpath import splitext

_LANGUAGES = {
    "python": ".py .pyi .pyw .ipynb", "javascript": ".js .mjs .cjs", "jsx": ".jsx", "typescript": ".ts .mts",
    "tsx": ".tsx", "c": ".c .h", "c++": ".cc .cpp .cxx .hpp .hh .hxx", "c#": ".cs", "java": ".java",
    "kotlin": ".kt .kts", "scala": ".scala", "go": ".go", "rust": ".rs", "swift": ".swift", "objective-c": ".m .mm",
    "zig": ".zig", "d": ".d", "dart": ".dart", "ruby": ".rb", "perl": ".pl .pm", "php": ".php", "lua": ".lua",
    "r": ".r", "julia": ".jl", "elixir": ".ex .exs", "erlang": ".erl", "haskell": ".hs", "clojure": ".clj",
    "lisp": ".el .lisp", "scheme": ".scm", "prolog": ".pro", "shell": ".sh .bash .zsh", "powershell": ".ps1",
    "sql": ".sql", "html": ".html .htm", "css": ".css", "scss": ".scss", "xml": ".xml", "vue": ".vue",
    "json": ".json", "yaml": ".yaml .yml", "toml": ".toml", "ini": ".ini .cfg", "tex": ".tex", "markdown": ".md",
    "restructuredtext": ".rst", "text": ".txt", "fortran": ".f .f90", "verilog": ".v .sv", "vhdl": ".vhd .vhdl",
    "cuda": ".cu", "protobuf": ".proto", "nix": ".nix", "terraform": ".tf", "groovy": ".groovy", "solidity": ".sol",
    "assembly": ".s .asm", "cmake": ".cmake",
}  # fmt: skip
LANGUAGES = {ending: name for name, endings in _LANGUAGES.items() for ending in endings.split()}
BY_NAME = {"makefile": "makefile", "dockerfile": "dockerfile", "cmakelists.txt": "cmake"}


def language_of(path: str) -> str:
    """The language of a file, derived from its name; "other" for an unknown name."""
    name = path.rpartition("/")[2].lower()
    return BY_NAME.get(name) or LANGUAGES.get(splitext(name)[1], "other")

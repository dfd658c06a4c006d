"""The documentation site: every notebook, and a reference made of the comments beside the parameters.

    sphinx-build -W --keep-going -c nbs/site nbs _docs
"""
import ast
import gc
import inspect
import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from docutils.statemachine import StateMachine
from fastcore import docments
from sphinx import addnodes
from sphinx.domains.python import PythonDomain
from sphinx.highlighting import PygmentsBridge

NBS = Path(__file__).parents[1]
PACKAGE = NBS.parent/"audio2pose"
ast.parse = lru_cache(4096)(ast.parse) # Whoever asks for the source of a class has its whole module parsed: hundreds of times the same text
inspect.getsource = docments.getsource = lru_cache(4096)(inspect.getsource) # Four ask for each function's, one after the other
gc.set_threshold(200_000, 50, 100) # Hundreds of thousands of nodes live until the end; to look through them again and again frees nothing

project = "audio2pose"
copyright = "The audio2pose authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["site", "images", "**/.ipynb_checkpoints", "runs/params"]
html_theme = "furo"
html_title = "audio2pose"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
nb_execution_mode = "off" # Outputs are stored in the notebooks
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False # There are none, and each function would be parsed for them
add_module_names = False
suppress_warnings = ["myst.header", "misc.highlighting_failure"] # A lesson may go from its title to a third-level heading, and call the shell in a cell of Python


# ---- the reference: parameter comments become field lists

def plain(text):
    "Words of a comment as reStructuredText: `name` is code, and nothing else is markup"
    pieces = re.split(r"`([^`]+)`", text or "")
    return "".join(f"\\ ``{piece}``\\ " if i%2 else re.sub(r"([*_|\\`])", r"\\\1", piece) for i,piece in enumerate(pieces)).removeprefix("\\ ")


def add_parameters(app, what, name, thing, options, lines):
    "Write the comments beside the parameters below the docstring"
    own = getattr(thing, "__module__", None) or ""
    if what=="data" or not own.startswith("audio2pose"): lines.clear() # The words of its type, not its own
    lines[:] = [plain(line) for line in lines]
    if what not in ("function", "method", "class"): return
    try: comments = docments.docments(thing, full=True, eval_str=False)
    except (TypeError, ValueError, OSError, SyntaxError, AttributeError, IndexError): return
    fields = [f":param {key}: {plain(' '.join(entry['docment'].split()))}" for key,entry in comments.items() if key not in ("return", "self") and entry.get("docment")]
    returns = comments.get("return", {}).get("docment")
    if returns: fields.append(f":returns: {plain(' '.join(returns.split()))}")
    if fields: lines += ["", *fields, ""]


def used_elsewhere():
    "Names that other modules, guides and runs import: (module, name)"
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name.startswith("_"): continue
        inside = file.relative_to(PACKAGE.parent).with_suffix("").parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), type_comments=True)): # Thus Sphinx will parse it, too
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join([*inside[:len(inside)-node.level], *filter(None, [node.module])])
                found |= {(base, alias.name) for alias in node.names}
    for notebook in (*NBS.glob("guides/*.ipynb"), *NBS.glob("runs/*.ipynb")):
        for base,names in re.findall(r"from (audio2pose[\w.]*) import ([\w, ]+)", notebook.read_text(encoding="utf-8")):
            found |= {(base, name.split()[0]) for name in names.split(",") if name.strip()}
    return found


def directive(module, name, thing):
    "The autodoc directive of one exported name"
    kind = "autoclass" if inspect.isclass(thing) else "autofunction" if inspect.isfunction(thing) else "autodata"
    members = ["   :members:", "   :undoc-members:"] if kind=="autoclass" else ["   :no-value:"] if kind=="autodata" else []
    return [f".. {kind}:: {module}.{name}", *members, ""]


def write_reference(app):
    "A page for each module: first what other rooms use, then what it is made of"
    folder = NBS/"reference"
    folder.mkdir(exist_ok=True)
    public,pages = used_elsewhere(),[]
    for notebook in sorted(NBS.glob("[0-9]*_*.ipynb")):
        module = f"audio2pose.{notebook.stem.split('_', 1)[1]}"
        loaded = import_module(module)
        names = [name for name in getattr(loaded, "__all__", []) if getattr(getattr(loaded, name), "__module__", module)==module]
        first = [name for name in names if (module, name) in public]
        short = module.removeprefix("audio2pose.")
        lines = [short, "="*len(short), "", *(plain(line) for line in (loaded.__doc__ or "").splitlines()), "", f"Lesson: :doc:`/{notebook.stem}`", ""]
        for title,group in (("Used by others", first), ("What it is made of", [name for name in names if name not in first])):
            if group: lines += [title, "-"*len(title), "", *(line for name in group for line in directive(module, name, getattr(loaded, name)))]
        write_if_changed(folder/f"{short}.rst", "\n".join(lines))
        pages.append(short)
    for page in set(folder.glob("*.rst"))-{folder/f"{page}.rst" for page in [*pages, "index"]}: page.unlink() # Of a module that is gone
    write_if_changed(folder/"index.rst", "\n".join(["Reference", "=========", "", ".. toctree::", "   :maxdepth: 1", "", "   options", *(f"   {page}" for page in pages), ""]))


def write_options(app):
    "The glossary of all options, from the parsers of the command line"
    from audio2pose import cli
    from audio2pose.commands.options import glossary_page
    write_if_changed(NBS/"reference/options.md", glossary_page(cli.app))


def write_if_changed(path, text):
    if not path.exists() or path.read_text(encoding="utf-8")!=text: path.write_text(text, encoding="utf-8")


# ---- the dance on the front page

def make_dance(app):
    "The demo song, danced, as a page"
    page = NBS/"site/static/dance.html"
    if page.exists(): return # Remove it to have it made again
    from audio2pose import dance
    from audio2pose.data.music import demo_track
    from audio2pose.show.player import html
    song = page.with_suffix(".wav")
    demo_track().save(song)
    page.write_text(html(dance(song, seed=0), song), encoding="utf-8")
    song.unlink()


def drop_option_objects(app, what, name, thing, options, signature, returns):
    "A command's signature names types; the objects that hold its help are for the shell"
    return re.sub(r"~?\w+\.Annotated\[(.+?), <[^>]*>\]", r"\1", signature or ""),returns


# ---- the sidebar

@lru_cache(1)
def title_trees(env):
    "Each page's table of contents without its sections: what a sidebar of titles needs"
    trees = {page: toc.deepcopy() for page,toc in env.tocs.items()}
    for tree in trees.values():
        for entry in tree.children:
            if len(entry)<2: continue
            inner = list(entry.findall(addnodes.toctree))
            if inner: entry[1][:] = inner
            else: entry.pop(1)
    return trees


sidebars = {} # Folder → the sidebar of its pages, with none of them marked


def share_sidebar(app, page, template, context, doctree):
    "Pages of a folder differ in what is marked; to render and parse the whole list for each of them is half the time of writing, and to copy all sections for it, as Sphinx does, more than that"
    toctree,env,(folder,_,name) = context.get("toctree"),app.env,page.rpartition("/")
    if toctree is None: return
    def of_titles(**options):
        if not options.get("titles_only"): return toctree(**options)
        if folder not in sidebars:
            whole,env.tocs = env.tocs,title_trees(env)
            try: sidebars[folder] = without_marks(toctree(**options), f"{name}.html")
            finally: env.tocs = whole
        return sidebars[folder]
    context["toctree"] = of_titles


def without_marks(tree, uri):
    "The contents as a page sees them that is not among them"
    tree = tree.replace('class="current reference internal" href="#"', f'class="reference internal" href="{uri}"')
    return re.sub(r'(<li class="toctree-l\d) current', r"\1", tree.replace('<ul class="current">', "<ul>"))


def mark_page(app, page, template, context, doctree):
    "In the sidebar: the entry of a page, and the lists and entries around it"
    before,link,after = context.get("furo_navigation_tree", "").partition(f'<a class="reference internal" href="{page.rpartition("/")[2]}.html"')
    if not link: return
    around = []
    for tag in re.finditer(r"<(/?)(?:ul|li)\b[^>]*>", before):
        if tag[1]: around.pop()
        else: around.append(tag)
    after = (after if "has-children" not in around[-1][0] else after.replace('" class="toctree-checkbox"', '" checked="" class="toctree-checkbox"', 1))
    for tag in reversed(around): # An entry's checkbox stands behind its own link
        inside = before[tag.end():]
        if tag is not around[-1] and "has-children" in tag[0]: inside = inside.replace('" class="toctree-checkbox"', '" checked="" class="toctree-checkbox"', 1)
        marked = '<ul class="current">' if tag[0]=="<ul>" else re.sub(r"toctree-l\d", r"\g<0> current", tag[0])
        if tag is around[-1]: marked = marked.replace('">', ' current-page">')
        before = before[:tag.start()]+marked+inside
    context["furo_navigation_tree"] = before+'<a class="current reference internal" href="#"'+after


# ---- links

@lru_cache(1)
def namesakes(env, count):
    "Objects by the last part of their names"
    found = {}
    for name,entry in env.domaindata["py"]["objects"].items(): found.setdefault(name.rpartition(".")[2], {})[name] = entry
    return found


def find_among_namesakes(domain, env, modname, classname, name, *more, search=PythonDomain.find_obj):
    "As Sphinx does, which looks through all objects for each type of a signature"
    whole = domain.data["objects"]
    domain.data["objects"] = namesakes(env, len(whole)).get(name.removesuffix("()").rpartition(".")[2], {})
    try: return search(domain, env, modname, classname, name, *more)
    finally: domain.data["objects"] = whole


PythonDomain.find_obj = find_among_namesakes


# ---- reading and highlighting

class LazyStates(dict):
    "States of docutils' parser by name, each made when it is first entered: a field of a field list enters two of the fifteen"
    def __init__(self, machine, classes):
        self.machine,self.classes,self.begun = machine,{state.__name__: state for state in classes},False

    def __missing__(self, name):
        state = self[name] = self.classes[name](self.machine, self.machine.debug)
        if self.begun: state.runtime_init()
        return state

    def begin(self):
        self.begun = True
        for state in self.values(): state.runtime_init()


StateMachine.add_states = lambda machine, classes: setattr(machine, "states", LazyStates(machine, classes))
StateMachine.runtime_init = lambda machine: machine.states.begin()


formatters = {}


def shared_formatter(bridge, make=PygmentsBridge.get_formatter, **options):
    "One formatter, and its style sheet, for all blocks with the same options"
    key = bridge,repr(options)
    if key not in formatters: formatters[key] = make(bridge, **options)
    return formatters[key]


PygmentsBridge.get_formatter = shared_formatter


def setup(app):
    app.connect("builder-inited", write_reference)
    app.connect("builder-inited", write_options)
    app.connect("builder-inited", make_dance)
    app.connect("autodoc-process-docstring", add_parameters)
    app.connect("autodoc-process-signature", drop_option_objects)
    app.connect("html-page-context", share_sidebar, priority=400) # Before furo
    app.connect("html-page-context", mark_page, priority=600) # After it

"Packaging: everything is said once, in settings.ini."
import re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent

def commit() -> str: # as `imgstudy.core.git_commit` says it of a checkout, without importing anything; '' if not known
    if not (here/'.git').exists():
        file = here/'.git_archival.txt'
        found = re.search('[0-9a-f]{40}', file.read_text()) if file.exists() else None
        return found[0][:12] if found else ''
    git = lambda *a: subprocess.run(['git', *a], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    try: return git('rev-parse', '--short=12', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.CalledProcessError): return ''

class build_with_commit(build_py):
    "Write the commit into what is built, so that an installed package can say where it is from."
    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False): return # git is asked then
        file = Path(self.build_lib)/'imgstudy/commit.txt'
        if found := commit(): file.write_text(found + '\n')
        else: file.unlink(missing_ok=True) # of an earlier build

ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
names = 'weights', 'share', 'heic', 'onnx', 'dask', 'distributed', 'tensorboard', 'browser', 'energy'
extras = {name: cfg[f'{name}_requirements'].split() for name in names}
# what notebooks and tables the program needs, without copies in the checkout
data = {'imgstudy': ['tables/*.json'], 'imgstudy.published': ['references.csv', 'items.csv'],
        'imgstudy.nbs': [f'{n}.ipynb' for n in ('run_study', 'transfer_study', 'audit_data', 'report', 'own_report', 'best_model')]}
trackers = {name: cfg[f'{name}_requirements'].split() for name in ('wandb', 'trackio', 'mlflow')} # large: not for development
bench = {'bench': cfg['bench_requirements'].split()} # the programs that the benchmark compares with

# An editable installation has the checkout itself and needs no copies. Without them setuptools puts the folder on Python's path;
# with them it would write an import hook, which comes too late where the folder `imgstudy` of the checkout lies in the current one.
is_editable = 'editable_wheel' in sys.argv
copies = {} if is_editable else {'imgstudy.nbs': 'nbs', 'imgstudy.published': 'report'}
if is_editable: data = {'imgstudy': data['imgstudy']}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    author=cfg['author'], license='Apache-2.0', keywords=cfg['keywords'],
    packages=find_packages(include=['imgstudy*']) + [*copies], package_dir=copies or {'': '.'}, package_data=data,
    cmdclass=dict(build_py=build_with_commit),
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={**extras, **trackers, **bench, 'dev': sum(extras.values(), cfg['dev_requirements'].split())},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
)

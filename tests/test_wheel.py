"The installed package, without a checkout: the notebooks and tables that commands need are in it."
import os, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest

top = Path(__file__).parent.parent
needed = ['nbs/run_study.ipynb', 'nbs/transfer_study.ipynb', 'nbs/audit_data.ipynb', 'nbs/report.ipynb', 'nbs/own_report.ipynb', 'nbs/best_model.ipynb', 'published/references.csv', 'published/items.csv',
          'tables/models.json', 'tables/datasets.json', 'tables/studies.json', 'tables/augment.json']


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "What a build takes of the checkout; a build in the checkout would leave folders there."
    source = tmp_path_factory.mktemp('source')
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'): shutil.copy(top/name, source)
    for name in ('imgstudy', 'nbs'): shutil.copytree(top/name, source/name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    (source/'report').mkdir()
    for name in ('references.csv', 'items.csv', 'index.html'): shutil.copy(top/'report'/name, source/'report')
    return source


@pytest.fixture(scope='module')
def installed(source, tmp_path_factory):
    "The wheel, unpacked, as pip would put it into site-packages."
    out = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', 'wheel', str(source), '--no-deps', '--no-build-isolation', '-q', '-w', str(out)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = out.glob('*.whl')
    with zipfile.ZipFile(wheel) as z: z.extractall(out/'site')
    return out/'site'


def python(code, installed, cwd):
    env = {k: v for k, v in os.environ.items() if not k.startswith('IMGSTUDY')} | dict(PYTHONPATH=str(installed), IMGSTUDY_CACHE=str(cwd/'cache'))
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd, env=env)


@pytest.mark.parametrize('name', needed)
def test_the_wheel_has(name, installed):
    here = dict(published='report').get(name.split('/')[0], name.split('/')[0])
    original = top/here/name.split('/')[1] if name.split('/')[0] != 'tables' else top/'imgstudy'/name
    assert (installed/'imgstudy'/name).read_bytes() == original.read_bytes(), 'the same file, not a copy that ages'


def test_the_wheel_has_nothing_else(installed):
    data = {p.relative_to(installed/'imgstudy').as_posix() for p in (installed/'imgstudy').rglob('*') if p.is_file() and p.suffix != '.py'}
    assert data == set(needed)
    assert {p.name for p in installed.iterdir() if p.suffix != '.dist-info'} == {'imgstudy'}


@pytest.mark.parametrize('name, there', [(n, True) for n in ('nbs/report.ipynb', 'nbs/audit_data.ipynb', 'report/references.csv')] +
                         [('nbs/01_runs.ipynb', False), ('tests/test_cuda.py', False)])
def test_a_command_finds_its_files(name, there, installed, tmp_path):
    done = python(f'from imgstudy.core import checkout_file; print(checkout_file({name!r}))', installed, tmp_path)
    if there: assert done.stdout.strip() == str(installed/'imgstudy'/name.replace('report/', 'published/')), done.stderr
    else: assert 'Clone the repository' in done.stderr


git = lambda folder, *words: subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize('kind', ['checkout', 'changed', 'archive', 'neither'])
def test_what_is_installed_knows_its_commit(kind, source, tmp_path, monkeypatch):
    "Installed not editable, the README of a study and of an archive can say which imgstudy made it."
    from types import SimpleNamespace
    from imgstudy import core
    checkout, built, digits = shutil.copytree(source, tmp_path/'source'), tmp_path/'built', '0123456789ab'
    if kind == 'archive': (checkout/'.git_archival.txt').write_text(f'node: {digits}{"c"*28}')
    elif kind != 'neither':
        for words in (['init', '-q'], ['add', 'setup.py', 'settings.ini'], ['commit', '-q', '-m', 'first']): git(checkout, *words)
        if kind == 'changed': (checkout/'settings.ini').write_text((checkout/'settings.ini').read_text() + '\n')
        digits = git(checkout, 'rev-parse', '--short=12', 'HEAD') + '+'*(kind == 'changed')
    done = subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(built)], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.setattr(core, 'find_spec', lambda name: SimpleNamespace(origin=str(built/'imgstudy/__init__.py')))
    assert core.git_commit() == (None if kind == 'neither' else digits)


def test_published_results(installed, tmp_path):
    done = python('from imgstudy.references import references; print(len(references()))', installed, tmp_path)
    assert done.returncode == 0 and int(done.stdout) > 150, done.stderr[-2000:]


@pytest.mark.slow
def test_audit_and_predict_without_a_checkout(installed, tmp_path):
    main = lambda *words: python(f'import sys; sys.argv[1:] = {list(words)!r}; from imgstudy.cli import main; main()', installed, tmp_path)
    for words in (['audit', 'digits', '--out', 'a.html'], ['train', 'digits', '--model', 'lenet5', '--epochs', '1', '--subset', '100'],
                  ['compare', 'digits', '--models', 'lenet5', '--epochs', '1', '--subset', '100', '--seeds', '1']):
        done = main(*words)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path/'a.html').stat().st_size > 50_000 and len([*(tmp_path/'runs').glob('*/record.json')]) >= 1
    done = main('report')
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path/'report.html').read_text(encoding='utf-8')
    assert 'Your own trainings' in page and 'five studies' not in page and str(tmp_path) not in page


@pytest.fixture(scope='module')
def editable(source, tmp_path_factory):
    "What `pip install -e` puts into site-packages, for a clone whose folder is named as the package."
    top = tmp_path_factory.mktemp('editable')
    shutil.copytree(source, top/'imgstudy', ignore=shutil.ignore_patterns('build', '*.egg-info'))
    (top/'site').mkdir()
    build = f'from setuptools.build_meta import build_editable; print(build_editable({str(top)!r}))'
    done = subprocess.run([sys.executable, '-c', build], capture_output=True, text=True, cwd=top/'imgstudy')
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = top.glob('*.whl')
    with zipfile.ZipFile(wheel) as z: z.extractall(top/'site')
    return top


@pytest.mark.parametrize('inside', ['.', 'imgstudy', 'imgstudy/nbs', 'site'])
def test_an_editable_package_is_found_from_every_folder(inside, editable):
    "Also where the folder of the clone is in the current one: Python takes it for a package without a file."
    alone = "sys.path[:] = [p for p in sys.path if not p or not os.path.exists(os.path.join(p, 'imgstudy/core.py'))]"  # not what runs this test
    code = (f'import os, site, sys; {alone}; site.addsitedir({str(editable/"site")!r}); '
            'import imgstudy.core; print(imgstudy.__file__, imgstudy.core.find_checkout())')
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=editable/inside, env=env)
    home = editable/'imgstudy'
    assert done.stdout.split() == [str(home/'imgstudy/__init__.py'), str(home)], done.stderr

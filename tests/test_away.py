"An installed package has no records: it finds those of the checkout that one works in, or says in one line where they are."
import shutil, types
from pathlib import Path
import pytest
from imgstudy import cli, commands
from imgstudy.core import StudyError, checkout_file, find_checkout, git_commit, template_folder
from imgstudy.records.find import committed_records, find_records, get_record, record_folders, records_in
from imgstudy.records.record import read_record

top = Path(__file__).parent.parent
one = sorted(p.parent.name for p in (top/'report/records').glob('digits-*/record.json'))[0]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    "As if this package were in site-packages, with what a wheel has."
    home = tmp_path/'site/imgstudy'
    (home/'nbs').mkdir(parents=True), (home/'published').mkdir()
    for name in ('references', 'items'): shutil.copy(top/f'report/{name}.csv', home/'published')
    shutil.copy(top/'nbs/own_report.ipynb', home/'nbs')
    monkeypatch.setattr('imgstudy.core.find_spec', lambda name: types.SimpleNamespace(origin=str(home/'__init__.py')))
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    return home


@pytest.mark.parametrize('inside', ('.', 'docs', 'report/records', 'nbs'))
def test_within_a_checkout_its_records_are_found(inside, installed, monkeypatch, capsys):
    monkeypatch.chdir(top/inside)
    assert find_checkout() == top and committed_records() == top/'report/records' and committed_records() in record_folders()
    assert get_record(one).id == one and git_commit() is None, 'the commit is that of the code'
    with records_in(committed_records()): assert find_records([read_record(top/'report/records'/one).run])
    cli.answer(['coverage', '--study', 'cifar10_mlp'])
    assert int(capsys.readouterr().out.split('\n')[1].split('\t')[1]) > 0 # at full scale
    assert checkout_file('report/references.csv') == installed/'published/references.csv' # which fits the code
    assert template_folder(installed/'nbs/own_report.ipynb') == top/'nbs' and template_folder('x/study.ipynb') == Path.cwd()/'x'


@pytest.mark.parametrize('words', (['coverage'], ['coverage', '--items', '--json'], ['coverage', '--study', 'cifar10_mlp'], ['diagnose', one],
                                   ['compare-runs', one, one], ['export', one, 'm.onnx'], ['leak', one], ['collect', 'all']))
def test_outside_one_line_says_where_they_are(words, installed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match='run this in the folder of a checkout') as e: cli.answer(words)
    assert '\n' not in str(e.value) and not capsys.readouterr().out
    assert {p.name for p in (tmp_path/'site').iterdir()} == {'imgstudy'}, 'nothing is written beside the package'


def test_outside_python_says_so_too(installed, tmp_path, monkeypatch):
    (tmp_path/'nbs').mkdir(), (tmp_path/'report').mkdir() # of another library
    (tmp_path/'settings.ini').write_text('[DEFAULT]\nlib_name = imgstudyx\n')
    monkeypatch.chdir(tmp_path/'nbs')
    assert find_checkout() is None
    for call in (lambda: records_in(committed_records()), lambda: get_record(one)):
        with pytest.raises(StudyError, match='run this in the folder of a checkout'): call()
    assert record_folders()[0] == tmp_path/'runs', 'a refused folder changes nothing'


@pytest.mark.parametrize('inside', (True, False))
def test_report_says_of_which_records_it_is(inside, installed, tmp_path, monkeypatch, capsys):
    for name, fake in dict(build_pages=lambda notebook, pages, **params: [*pages], write_cards=lambda *args: [],
                           _update_readme=lambda *args: None, checkout_file=lambda *args: None, own_page=lambda records: True,
                           sound_records=lambda where: ([*where.glob('*/record.json')], [])).items(): monkeypatch.setattr(commands, name, fake)
    shutil.copytree(top/'report/records'/one, tmp_path/'runs'/one)
    monkeypatch.chdir(top/'docs' if inside else tmp_path)
    cli.answer(['report'])
    said = capsys.readouterr().out
    n = len([*(top/'report/records').glob('*/record.json')])
    if inside: assert str(top/'report/index.html') in said and f'Made of {n} records in {top/"report/records"}.\n' in said
    else: assert f'Made of 1 record in {tmp_path/"runs"}. The records that come with imgstudy are in its checkout' in said and 'report.html' in said


def test_gpu_writes_nothing_beside_the_package(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import imgstudy.gpu
    monkeypatch.setattr(imgstudy.gpu, 'measure_gpu', lambda limit, out, only, cpu: found.append(out))
    found = []
    for more in ([], ['--cpu'], ['--out', 'mine']): cli.answer(['gpu', *more])
    assert found == [str(tmp_path/'runs/benchmarks'), '', 'mine']

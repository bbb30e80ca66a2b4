"A study in a folder of its own, from its beginning to an archive that is checked, and what is refused on the way."
import hashlib, json, re, zipfile
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from imgstudy import cli, quick
from imgstudy.core import StudyError
from imgstudy.hand_in import hand_in_study, make_study
from imgstudy.handed_in import (_check_figures, _check_files, _check_methods, _check_records, _check_tables, _step, _unpack, check_archive,
                                check_hand_in_of)
from imgstudy.records.find import records_in
from imgstudy.references import references
from imgstudy.report.coverage import coverage
from imgstudy.report.tables import _compared, answer_table
from imgstudy.study.own_study import change_notebook, close_studies, find_study, new_study, open_study, reference_metrics
from imgstudy.study.studies import studies, study_runs, unique_runs
from imgstudy.sweep.workers import run_plain


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A study of two rows and two seeds, trained for one epoch."
    path = new_study(tmp_path_factory.mktemp('own')/'optimisers', authors='Ada B. Student')
    change_notebook(path, 'epochs=20', 'epochs=1')
    change_notebook(path, 'seeds = 3 ', 'seeds = 2 ')
    for run in unique_runs(study_runs(open_study(path), 'full')): run_plain(run, path/'records')
    return path


@pytest.fixture(scope='module')
def archive(folder): return hand_in_study(folder, folder.parent/'out.zip')


@pytest.fixture(autouse=True)
def only_ours_after():
    "A study that was opened is unknown to other tests."
    yield
    close_studies()


def test_commands_take_the_folder(folder, capsys):
    for name in ('run', 'status'): assert cli.parse(name, ['--study', str(folder)])['study'] == str(folder)
    cli.status(str(folder))
    cli.verify(study=str(folder))
    cli.coverage(study=str(folder))
    cli.run(str(folder), dry_run=True)
    said = capsys.readouterr().out
    assert 'optimisers: 4 done' in said and '4 agree with their predictions' in said and '4 trainings' in said
    assert re.search(r'optimisers\t', said)


def test_rows_stand_beside_their_own_references(folder):
    study = open_study(folder)
    with records_in(folder/'records'):
        table, items = answer_table(study, 'full'), coverage(study)
    assert table.published.tolist()[0] == .977 and str(table.verdict.iloc[0]) and np.isnan(table.published.iloc[1])
    assert items.state.tolist() == ['full'] and items.row.tolist() == ['AdamW']
    assert len(references()) == len(references()[references().study != 'optimisers']) + 1


def test_every_metric_of_a_reference_is_compared(): assert set(reference_metrics) == set(_compared)


def test_an_own_study_leaves_ours_as_they_were(folder):
    ours = references(study='cifar10_mlp')
    open_study(folder)
    assert ours.equals(references(study='cifar10_mlp').drop(columns='row').astype(ours.dtypes))


@pytest.mark.parametrize('old, new, message', [
    ("model='lenet5'", "model='lenett5'", "row 'AdamW': There is no model 'lenett5'. Did you mean 'lenet5'"),
    ("dataset='digits'", "dataset='digts'", "There is no dataset 'digts'"),
    ("opt='sgd'", "opt='sdg'", "row 'SGD with momentum'"),
    ("rows = {", "rows = 3 #{", 'is not Python'),
    ('seeds = 2 ', 'seeds = len("ab") ', 'is no name with a plain value')])
def test_a_wrong_row_is_named(folder, old, new, message):
    change_notebook(folder, old, new)
    try:
        with pytest.raises(StudyError, match=re.escape(message)): find_study(folder)
    finally: change_notebook(folder, new, old)


@pytest.mark.parametrize('old, new, message', [
    ('AdamW,accuracy', 'AdamW,f1', "line 2: There is no metric 'f1'"), ('lenet5,scratch', 'lenet9,scratch', "no model 'lenet9'"),
    (',digits,', ',digit,', "no dataset 'digit'"), ('AdamW,acc', 'Adam,acc', "no row 'Adam'"), ('0.977', 'best', '`value` must be a number')])
def test_a_wrong_reference_is_named(folder, old, new, message):
    file = folder/'references.csv'
    text = file.read_text()
    file.write_text(text.replace(old, new))
    try:
        with pytest.raises(StudyError, match=re.escape(message)): open_study(folder)
    finally: file.write_text(text)


def test_a_new_study_is_made_whole_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in (('cifar10_mlp', 'a study of this library'), ('2nd', 'is no name'), (Path(cli.__file__).parent.parent/'mine', 'is a checkout')):
        with pytest.raises(StudyError, match=message): new_study(name)
    assert not any(tmp_path.iterdir())
    with pytest.raises(StudyError, match='imgstudy new-study NAME'): quick.check_studies('some/folder')


def test_an_archive_holds_and_names_nobody_else(archive, folder, capsys, tmp_path):
    with zipfile.ZipFile(archive) as z: files = {n: z.read(n) for n in z.namelist()}
    for word in (str(folder.parent), str(Path.home()), str(Path(cli.__file__).parent.parent), '/tmp/'):
        assert not [n for n, data in files.items() if not n.endswith('.png') and word.encode() in data], word
    assert {'report.html', 'CITATION.cff', 'DATA.md', 'METHODS.md', 'VERIFY.md', 'requirements-lock.txt', 'manifest.json'} <= {*files}
    assert b'\\toprule' in files['tables/results.tex'] and b'family-names: "Student"' in files['CITATION.cff']
    check_archive(SimpleNamespace(archive=str(archive), no_rerun=False))
    assert 'All of it holds.' in capsys.readouterr().out


def changed(archive, dest, name, edit, again):
    "A copy of `archive` with another file `name`; None: without it. `again`: its hash is written anew."
    with zipfile.ZipFile(archive) as z: files = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(files['manifest.json'])
    if edit is None: del files[name]
    else: files[name] = edit(files[name]) if name.startswith('figures/') else edit(files[name].decode()).encode()
    if again and edit: manifest['files'][name] = hashlib.sha256(files[name]).hexdigest()
    if again and not edit: del manifest['files'][name]
    files['manifest.json'] = json.dumps(manifest).encode()
    with zipfile.ZipFile(dest, 'w') as z:
        for n, data in files.items(): z.writestr(n, data)
    return dest


def found(archive, tmp_path):
    folder = (tmp_path/'unpacked').resolve()
    manifest = _unpack(archive, folder)
    return [w for check in (_check_files, _check_records, _check_tables) for w in _step(check, folder, manifest)]


@pytest.mark.parametrize('again', [False, True])
def test_what_was_changed_is_caught(archive, tmp_path, again):
    with zipfile.ZipFile(archive) as z: record = next(n for n in z.namelist() if n.endswith('record.json'))
    raised = lambda t: re.sub(r'"accuracy": 0\.\d+', '"accuracy": 0.9999', t)
    said = found(changed(archive, tmp_path/'a.zip', record, raised, again), tmp_path)
    assert any('The record was changed' in s for s in said) and any('was changed' in s for s in said)
    said = found(changed(archive, tmp_path/'b.zip', record, None, again), tmp_path/'b')
    assert any('is missing' in s for s in said)
    said = found(changed(archive, tmp_path/'c.zip', 'tables/results.csv', lambda t: t.replace('0.', '0.9'), again), tmp_path/'c')
    assert any('tables/results.csv' in s for s in said)


def test_changed_methods_are_caught(archive, tmp_path):
    more = lambda t: re.sub(r'(?<=trained )\w+(?= times)', 'twenty', t)
    folder = (tmp_path/'unpacked').resolve()
    manifest = _unpack(changed(archive, tmp_path/'m.zip', 'METHODS.md', more, again=True), folder)
    assert any('METHODS.md' in w for w in _step(_check_methods, folder, manifest))


def test_a_changed_picture_is_caught(archive, tmp_path, capsys):
    "The first curve of the first figure is moved up."
    import base64
    def moved(page):
        first = re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
        svg = base64.b64decode(first[1]).decode()
        other = re.sub(r'(<path d="M )(\d+)', lambda m: f'{m[1]}{int(m[2]) + 9}', svg, count=1)
        assert other != svg
        return page.replace(first[1], base64.b64encode(other.encode()).decode(), 1)
    other = changed(archive, tmp_path/'p.zip', 'report.html', moved, again=True)
    with pytest.raises(StudyError, match='do not hold'): check_archive(SimpleNamespace(archive=str(other), no_rerun=True))
    assert 'picture 1 is not what the records give' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['curves.svg', 'confusion.svg', 'classes.png'])
def test_a_changed_figure_is_caught(archive, tmp_path, name):
    from PIL import Image, ImageDraw
    import io
    def drawn_over(data):
        picture = Image.open(io.BytesIO(data)).convert('RGB')
        ImageDraw.Draw(picture).rectangle((9, 9, 30, 30), fill='black')
        picture.save(out := io.BytesIO(), 'png')
        return out.getvalue()
    moved = lambda data: re.sub(rb'(<path d="M )(\d+)', lambda m: m[1] + b'%d' % (int(m[2]) + 9), data, count=1)
    other = changed(archive, tmp_path/'f.zip', f'figures/{name}', moved if name.endswith('svg') else drawn_over, again=True)
    folder = (tmp_path/'unpacked').resolve()
    manifest = _unpack(other, folder)
    assert _step(_check_figures, folder, manifest) == [f'figures/{name} is not what the records give']
    assert _step(_check_figures, folder, {**manifest, 'matplotlib': '1.0'}) == [] # drawn by another program
    (folder/'figures'/name).unlink()
    assert _step(_check_figures, folder, {**manifest, 'matplotlib': '1.0'}) == [f'figures/{name} is missing']


def test_a_row_is_trained_again_whole(archive, folder, tmp_path, monkeypatch):
    from imgstudy import handed_in
    manifest = _unpack(archive, unpacked := (tmp_path/'unpacked').resolve())
    row, same = manifest['cheapest'], handed_in._again
    wrong, said = handed_in._check_rerun(unpacked, manifest)
    assert not wrong and said.startswith(f'{row}, trained again 2 times: ') and said.endswith('each the same')
    def by(points):
        def again(old, root):
            new = same(old, root)
            return SimpleNamespace(info=new.info, metrics=dict(new.metrics, accuracy=new.metrics['accuracy'] + points))
        return again
    monkeypatch.setattr(handed_in, '_again', by(.003))
    wrong, said = handed_in._check_rerun(unpacked, manifest)
    assert not wrong and 'differ by +0.0030' in said and 'is chance' in said
    monkeypatch.setattr(handed_in, '_again', by(-.3))
    wrong, said = handed_in._check_rerun(unpacked, manifest)
    assert 'differ by -0.3000' in wrong[0] and not said


def test_a_changed_report_is_caught(archive, tmp_path, capsys):
    raised = lambda t: re.sub(r'\d\.\d{3} \[', '0.999 [', t, count=1)
    other = changed(archive, tmp_path/'d.zip', 'report.html', raised, again=True)
    with pytest.raises(StudyError, match='do not hold'): check_archive(SimpleNamespace(archive=str(other), no_rerun=True))
    assert "'0.999' stands there, but the records give" in capsys.readouterr().out


def test_other_files_and_versions_are_named(archive, tmp_path):
    (tmp_path/'half.zip').write_bytes(archive.read_bytes()[:4000])
    with zipfile.ZipFile(tmp_path/'new.zip', 'w') as z: z.writestr('manifest.json', '{"format": 7, "imgstudy": "7.0"}')
    for name, message in (('half.zip', 'cut short'), ('new.zip', 'install imgstudy 7.0')):
        with pytest.raises(StudyError, match=message): check_archive(SimpleNamespace(archive=str(tmp_path/name), no_rerun=True))


def test_nothing_is_written_without_authors_or_records(folder, tmp_path):
    fresh = new_study(tmp_path/'fresh')
    with pytest.raises(StudyError, match='Who hands it in'): hand_in_study(fresh, tmp_path/'x.zip')
    with pytest.raises(StudyError, match='imgstudy run --study'): hand_in_study(fresh, tmp_path/'x.zip', authors='A. B')
    assert not (tmp_path/'x.zip').exists()


def test_names_of_own_images_do_not_go_along(folder, tmp_path):
    "Names of photographs may tell of persons."
    from imgstudy.hand_in import _without_names
    from imgstudy.records.record import read_record, verify_record
    path = next((folder/'records').glob('*/record.json')).parent
    import shutil; copy = Path(shutil.copytree(path, tmp_path/path.name))
    record = read_record(copy)
    before = set(map(str, record.predictions['path']))
    record.run = type(record.run)(**{**vars(record.run), 'dataset': 'folder:cats@1a2b3c4d5e6f'})
    (copy/'images.csv').write_text('path,digest,label,split,group\nanna/1.png,0,a,train,anna\n')
    _without_names(copy, record)
    assert 'anna' not in (copy/'images.csv').read_text()
    again = read_record(copy)
    assert not before & set(map(str, again.predictions['path']))
    verify_record(again)


@pytest.fixture(scope='module')
def with_photos(tmp_path_factory):
    "A study of photographs beside its notebook, named by a relative path."
    from PIL import Image
    path = new_study(tmp_path_factory.mktemp('own')/'shades', authors='Ada B. Student')
    rng = np.random.default_rng(0)
    for name, level in dict(dark=60, light=190).items():
        (path/'photos'/name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(level - 40, level + 40, (32, 32, 3), dtype=np.uint8)).save(path/'photos'/name/f'anna_{i}.png')
    change_notebook(path, "dataset='digits'", "dataset='folder:photos'")
    change_notebook(path, 'epochs=20', 'epochs=1')
    change_notebook(path, 'seeds = 3 ', 'seeds = 1 ')
    (path/'references.csv').unlink()
    for run in unique_runs(study_runs(open_study(path), 'full')): run_plain(run, path/'records')
    yield path
    close_studies()


def test_photographs_need_not_be_where_it_is_checked(with_photos, tmp_path, monkeypatch, capsys):
    archive = hand_in_study(with_photos, tmp_path/'shades.zip')
    with zipfile.ZipFile(archive) as z: texts = [z.read(n) for n in z.namelist() if not n.endswith(('.png', '.npz', '.webp'))]
    assert not any(word in text for text in texts for word in (b'anna_', str(with_photos).encode(), b'folder:photos'))
    assert not any(check_hand_in_of(archive, rerun=False).values()) # where they are it holds, too
    (with_photos/'photos').rename(tmp_path/'elsewhere')
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    close_studies()
    capsys.readouterr()
    check_archive(SimpleNamespace(archive=str(archive), no_rerun=False))
    said = capsys.readouterr().out
    assert 'not trained again' in said and said.endswith('All of it holds.\n')
    (tmp_path/'elsewhere').rename(with_photos/'photos')


@pytest.mark.parametrize('text', ['folder:/mnt/anna', 'csv:~/anna/t.csv', 'file:D:/anna/w.pth'])
def test_a_path_in_words_is_refused(with_photos, tmp_path, text):
    change_notebook(with_photos, 'In your own words', f'See {text}. In your own words')
    try:
        with pytest.raises(StudyError, match='would go with the archive'): hand_in_study(with_photos, tmp_path/'x.zip')
    finally: change_notebook(with_photos, f'See {text}. ', '')
    assert not (tmp_path/'x.zip').exists()

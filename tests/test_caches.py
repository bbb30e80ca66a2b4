"Copies named by content, a full disk of the cache, what killed sweeps left, and `imgstudy clean`."
import errno, json, os, shutil, signal, subprocess, sys, tarfile, time, zipfile
import numpy as np, pandas as pd, pytest
from pathlib import Path
from PIL import Image
from imgstudy.caches import cache_entries, chosen_kinds, free, split_recent
from imgstudy.core import DiskFull, StudyError, atomic_dir, atomic_file, content_key
from imgstudy.data.datasets import unpack
from imgstudy.data.images import check_images
from imgstudy.data.sources import Arrays
from imgstudy.study.create import create_run
from imgstudy.sweep.claims import clear_dead
from imgstudy.sweep.sweep import _make_plan
from imgstudy.training.train import train


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'


def photos(root, n=4, colour=90):
    for c in 'ab':
        (root/c).mkdir(parents=True)
        for i in range(n): Image.fromarray(np.full((12, 12, 3), colour + 9*i + 40*(c == 'b'), np.uint8)).save(root/c/f'{i}.png')
    return root


@pytest.mark.parametrize('ending', ['.zip', '.tar.gz', '.tar.xz', '.tar'])
def test_an_archive_is_unpacked_once_whatever_its_date_name_and_place(ending, cache, tmp_path):
    photos(tmp_path/'src/toys')
    kind = {'.zip': 'zip', '.tar.gz': 'gztar', '.tar.xz': 'xztar', '.tar': 'tar'}[ending]
    made = Path(shutil.make_archive(str(tmp_path/'toys'), kind, tmp_path/'src'))
    first = unpack(made, 'toys')
    os.utime(made, (10, 10)) # as when a file is copied or a disk is mounted again
    (tmp_path/'elsewhere').mkdir()
    moved = shutil.copy(made, tmp_path/'elsewhere'/f'renamed{ending}')
    assert unpack(made, 'toys') == unpack(moved, 'toys') == first
    assert len([p for p in (cache/'datasets').iterdir() if not p.name.startswith('.')]) == 1
    photos(tmp_path/'src/toys2', colour=30)
    other = Path(shutil.make_archive(str(tmp_path/'toys'), kind, tmp_path/'src')) # the same name, other content
    assert unpack(other, 'toys') != first


def test_copies_of_older_versions_are_used(cache, tmp_path, capsys):
    photos(tmp_path/'src/toys')
    made = Path(shutil.make_archive(str(tmp_path/'toys'), 'zip', tmp_path/'src'))
    from imgstudy.data.datasets import _old_key
    photos(cache/f'datasets/toys-{_old_key(made)}/toys')
    assert unpack(made, 'toys').parent.name == f'toys-{_old_key(made)}' and 'Unpacking' not in capsys.readouterr().out


def test_converted_arrays_are_named_by_content(cache, tmp_path, capsys):
    read = lambda folder: (['a', 'b'], {'train': (np.load(folder/'x.npy'), [0, 1])})
    layout, folder = Arrays(('x.npy',), read), tmp_path/'own'
    folder.mkdir()
    for k in range(3):
        np.save(folder/'x.npy', np.full((2, 8, 8, 3), 7*(k == 2), np.uint8)) # the same content with another date, then another
        os.utime(folder/'x.npy', (k, k))
        layout(folder)
    assert len([*(cache/'datasets').glob('own-png-*')]) == 2 == capsys.readouterr().out.count('Converting')


@pytest.mark.parametrize('contents', [(b'a', b'b'), (b'', b'\0'), (b'x'*3_000_000, b'x'*2_999_999 + b'y')])
def test_keys_tell_contents_apart(contents, cache, tmp_path):
    a, b = tmp_path/'a', tmp_path/'b'
    a.write_bytes(contents[0]); b.write_bytes(contents[1])
    os.utime(a, (5, 5)); os.utime(b, (5, 5))
    assert content_key(a) != content_key(b)
    assert content_key(a, b) != content_key(b, a)


def full(*args, **kwargs): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize('what', ['csv', 'unpack', 'quota'])
def test_a_full_cache_disk_names_the_folder_and_the_variable(what, cache, tmp_path, monkeypatch):
    photos(tmp_path/'src/toys')
    made = shutil.make_archive(str(tmp_path/'toys'), 'zip', tmp_path/'src')
    def over(*args, **kwargs): raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    monkeypatch.setattr(pd.DataFrame, 'to_csv', full if what == 'csv' else over)
    monkeypatch.setattr(shutil, 'unpack_archive', full)
    with pytest.raises(DiskFull, match='make room there, or set IMGSTUDY_CACHE') as e:
        unpack(made, 'toys') if what == 'unpack' else check_images(tmp_path/'src/toys', ['a/0.png', 'b/1.png'])
    assert str(cache) in str(e.value) and '\n' not in str(e.value)
    assert not [p for p in cache.rglob('*') if 'part' in p.name], 'nothing half-written'


def test_a_full_cache_disk_is_no_failed_run(cache, tmp_path, monkeypatch):
    values = dict(dataset=f"folder:{photos(tmp_path/'mine', 12)}", model='lenet5', epochs=1)
    monkeypatch.setattr(pd.DataFrame, 'to_csv', full)
    with pytest.raises(DiskFull, match='IMGSTUDY_CACHE'): train(create_run(**values), root=tmp_path/'runs')
    assert not [*(tmp_path/'runs').glob('*/record.json')]
    monkeypatch.undo()
    monkeypatch.setenv('IMGSTUDY_CACHE', str(cache))
    assert train(create_run(**values), root=tmp_path/'runs').outcome == 'finished' # the same call goes on


def test_without_room_for_pixels_a_training_reads_the_files(cache, tmp_path, monkeypatch, capsys):
    run = create_run(dataset=f"folder:{photos(tmp_path/'mine', 12)}", model='lenet5', epochs=1)
    monkeypatch.setattr('imgstudy.data.pixels._create', full)
    assert train(run, root=tmp_path/'runs').outcome == 'finished'
    assert 'IMGSTUDY_CACHE names another folder' in capsys.readouterr().out


def test_elsewhere_a_full_disk_keeps_its_own_words(cache, tmp_path):
    for make in (atomic_file, atomic_dir):
        with pytest.raises(OSError) as e:
            with make(tmp_path/'x'): full()
        assert not isinstance(e.value, StudyError)


def test_the_next_sweep_clears_what_a_killed_one_left(tmp_path):
    code = ("import sys, time, os; from imgstudy.sweep.claims import Claim, this_process; import json, pathlib; r = pathlib.Path(sys.argv[1])\n"
            "with Claim(r, 'a-run') as mine:\n (r/'.claims/sweep-1').write_text(json.dumps(this_process())); print(mine, flush=True); time.sleep(600)")
    process = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'True\n'
    folder = tmp_path/'.claims'
    assert clear_dead(tmp_path) == [] and len([*folder.iterdir()]) == 2, 'those of a living process stay'
    process.send_signal(signal.SIGKILL); process.wait()
    (folder/'b.1.json').write_text(json.dumps(dict(machine='another host', pid=1, born=0.)))
    plan = _make_plan(tmp_path, None, None, 120.) # with which a sweep begins
    assert {p.name for p in folder.iterdir()} == {'b.1.json', plan.token}, 'nothing is known of another machine'


def filled(cache):
    old = time.time() - 9*86400
    for k, name in enumerate(['datasets/cats-aaaaaaaaaa/1.png', 'datasets/cats-bbbbbbbbbb/1.png', 'datasets/dogs-cccccccccc/1.png', 'pixels/p/pixels.npy',
                              'pixels/f/features.npy', 'checks/c.csv', 'downloads/m/cats.tgz', 'tables/t.csv']):
        (cache/name).parent.mkdir(parents=True, exist_ok=True)
        (cache/name).write_bytes(b'x'*9000)
        for p in (cache/name, (cache/name).parent): os.utime(p, (old + k,)*2)


@pytest.mark.parametrize('what, goes', [
    ('old', {'cats-aaaaaaaaaa'}), ('datasets', {'cats-bbbbbbbbbb', 'dogs-cccccccccc'}), ('pixels', {'p'}), ('features, checks', {'f', 'c.csv'}),
    ('downloads', {'m'}), ('', {'cats-aaaaaaaaaa', 'cats-bbbbbbbbbb', 'dogs-cccccccccc', 'p', 'f', 'c.csv'})])
def test_clean_frees_what_is_chosen(what, goes, cache, capsys):
    filled(cache)
    names = lambda: {p.name for p in cache.glob('*/*')}
    before = names()
    from imgstudy.cli import answer
    answer(['clean', '--what', what] if what else ['clean'])
    assert names() == before and 'frees' in capsys.readouterr().out, 'shown, not freed'
    answer(['clean', '--yes', '--what', what] if what else ['clean', '--yes'])
    assert before - names() == goes and 'freed' in capsys.readouterr().out


def test_clean_spares_what_is_in_use_and_what_links_lead_to(cache, tmp_path):
    filled(cache)
    mine = photos(tmp_path/'mine')
    (cache/'datasets/link-dddddddddd').symlink_to(mine)
    os.utime(cache/'pixels/p')
    idle, busy = split_recent([e for e in cache_entries() if e.kind in chosen_kinds('')])
    free(idle)
    assert 'p' in {e.path.name for e in busy} and (cache/'pixels/p/pixels.npy').exists()
    assert len([*mine.rglob('*.png')]) == 8, 'a link may go, the photographs it leads to stay'


def test_clean_of_an_empty_cache_and_of_a_typo(cache, capsys):
    from imgstudy.cli import answer
    answer(['clean'])
    assert 'is empty' in capsys.readouterr().out
    with pytest.raises(StudyError, match="Did you mean 'pixels'"): answer(['clean', '--what', 'pixel'])

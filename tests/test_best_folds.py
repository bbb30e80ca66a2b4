"With few images `imgstudy best` judges by folds: probes and trainings by the same images, each by a model that had not seen it."
import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import save_file
from imgstudy import best as module
from imgstudy.best import best, fold_data, read_units, rung_items, start_search, training_run
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.models.register import create_model
from imgstudy.records.record import verify_record
from imgstudy.study.judge import judging_folds
from imgstudy.study.ladder import judged, judging_images, next_unit


def picture(rng, up):
    h, w = rng.integers(30, 50, 2)
    row, col = np.mgrid[0:h, 0:w]
    wave = np.sin((row + (1 if up else -1)*col)*.6 + rng.uniform(0, 6))
    return Image.fromarray((120 + 30*wave[..., None] + rng.normal(0, 30, (h, w, 3))).clip(0, 255).astype(np.uint8))


def folder(top, counts, name='{i}.png'):
    rng = np.random.default_rng(0)
    for c, n in counts.items():
        (top/c).mkdir(parents=True)
        for i in range(n): picture(rng, c == 'up').save(top/c/name.format(i=i, g=i//3))
    return f'folder:{top}'


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    return tmp_path


@pytest.fixture
def net(tmp_path):
    torch.manual_seed(0)
    net = create_model('timm:test_resnet', 10, size=64).train()
    with torch.no_grad():
        for _ in range(4): net(torch.randn(16, 3, 64, 64))
    save_file(net.state_dict(), tmp_path/'net.safetensors')
    return {'timm:test_resnet': f"file:{tmp_path/'net.safetensors'}"}


def test_probes_and_trainings_are_judged_by_the_same_images(own, net):
    found = best(folder(own/'photos', dict(down=30, up=30)), '120s', net, ['lenet5'], 64)
    done = judged(found.units)
    assert {u['kind'] for u in done} >= {'probe', 'tune'}
    assert {(u['folds'], judging_images(u), len(u['hits'])) for u in done} == {(5, 48, 48)}
    assert '48 images, in folds' in found.sentences[1] and '12 test images' in found.sentences[0]
    labels = next(u for u in found.units if 'gain' in u)
    assert labels['tried'] == 38 and 'use them first' not in found.sentences[2] # the last share is without a fold
    verify_record(found.record)
    assert found.record.info['data']['counts'] == dict(train=38, valid=10, test=12) and not [*found.folder.glob('tries/folds-*')]
    facts, units = read_units(found.folder)
    for i, u in enumerate(units[1:], 1):
        again = next_unit(units[:i], facts, 120)
        assert [again.get(k) for k in ('kind', 'model', 'folds')] == [u.get(k) for k in ('kind', 'model', 'folds')]


def test_killed_between_folds_it_goes_on_from_the_last_that_is_done(own, monkeypatch):
    dataset, trained, train = folder(own/'photos', dict(down=20, up=20)), [], module.train_once
    def stop_at(n):
        def once(run, data, root):
            if len(trained) == n: raise KeyboardInterrupt
            trained.append(root.name)
            return train(run, data, root)
        return once
    monkeypatch.setattr(module, 'train_once', stop_at(3))
    with pytest.raises(KeyboardInterrupt): best(dataset, '40s', {}, ['lenet5'])
    folder_ = start_search(dataset, {}, ('lenet5',)).folder
    assert [u['kind'] for u in read_units(folder_)[1]] == ['read']
    done = sorted(p.parent.parent.name for p in folder_.glob('tries/folds-*/*/*/record.json'))
    assert done == ['0', '1', '2']
    before = {k: (next(folder_.glob(f'tries/folds-*/{k}/*/record.json'))).read_bytes() for k in done}
    monkeypatch.setattr(module, 'train_once', train)
    kept, clear = {}, module.shutil.rmtree
    def cleared(p, **kw):
        if p.name.startswith('folds-'): kept.update({k: next(p.glob(f'{k}/*/record.json')).read_bytes() for k in done})
        clear(p, **kw)
    monkeypatch.setattr(module.shutil, 'rmtree', cleared)
    found = best(dataset, '40s', {}, ['lenet5'])
    assert kept == before and judging_images(judged(found.units)[0]) == 32 # trained once, not again


def test_groups_are_not_divided_and_no_test_image_is_seen(own):
    dataset = folder(own/'photos', dict(down=30, up=30), 'scene{g}-{i}.png')
    search = start_search(dataset, {}, ('lenet5',), groups='name:scene([0-9]+)')
    run = training_run(search, dict(kind='scratch', model='lenet5', epochs=1))
    data = load_data(run)
    items = rung_items(data, search.facts.train, search.facts.valid)
    fold, groups = judging_folds(items), []
    assert search.facts.folds == fold.max() + 1 >= 3 and not {*items.path} & {*data.of('test').path}
    for k in range(fold.max() + 1):
        part = fold_data(data, items, fold == k)
        assert not {*part.of('train').group} & {*part.of('test').group} and {*part.of('test').path} == {*part.of('valid').path}
        groups += [*part.of('test').path]
    assert sorted(groups) == sorted(items.path) # each once


def test_uneven_classes_and_a_handful_of_images(own, net, capsys):
    found = best(folder(own/'photos', dict(a=3, down=12, up=20)), '1s', net, [], 64)
    probe = found.units[1]
    assert probe['folds'] == 5 and judging_images(probe) == len(probe['hits']) == 28 and found.record.metrics['n'] == 7
    said, m = capsys.readouterr().out, found.record.metrics
    assert 'The largest class (up, 13 training images)' in said and said.index('The largest') < said.index('probe')
    assert abs(m['accuracy'] - m['balanced_accuracy']) > .02 and len(found.sentences) == 4
    assert found.sentences[0].endswith(f"(balanced accuracy): {m['balanced_accuracy']:.1%}.")


@pytest.mark.parametrize('metrics, ends', [
    ([(.9, .6)], '(balanced accuracy): 60.0%.'), ([(.9, .6), (.8, .7)], '(balanced accuracy): 65.0%.'), ([(.5, .75)], '(balanced accuracy): 75.0%.'),
    ([(.9, .89)], ''), ([(.9, .6), (.6, .9)], ''), ([(.9, None)], ''), ([], '')])
def test_balanced_accuracy_is_said_where_it_differs(metrics, ends):
    from types import SimpleNamespace
    from imgstudy.photos import balanced_words
    records = [SimpleNamespace(metrics=dict(accuracy=a) | (dict(balanced_accuracy=b) if b else {})) for a, b in metrics]
    said = balanced_words(records)
    assert bool(said) == bool(ends) and said.endswith(ends)


def test_where_folds_cannot_be_dealt_validation_images_judge(own, capsys):
    folder(own/'photos', dict(down=12, up=12), 'scene{g}-{i}.png')
    for c in ('down', 'up'):
        for split, scenes in dict(train='01', valid='2', test='3').items():
            (own/'given'/split/c).mkdir(parents=True)
            for p in (own/'photos'/c).glob(f'scene[{scenes}]-*'): p.rename(own/'given'/split/c/f'{c}-{p.name}')
    search = start_search(f"folder:{own/'given'}", {}, ('lenet5',), groups='name:(down|up-scene[0-9]+)') # all of a class is one group
    assert search.facts.folds == 0 and 'folds' not in next_unit(search.units, search.facts, 60)
    assert 'Only 6 validation images judge, since some class has too few groups' in capsys.readouterr().out


def test_a_search_of_an_older_version_stays_and_a_new_one_begins(own, capsys, monkeypatch):
    dataset = folder(own/'photos', dict(down=20, up=20))
    monkeypatch.setattr(module, 'count_folds', lambda data: 0) # as it was
    old = start_search(dataset, {}, ('lenet5',))
    monkeypatch.undo()
    monkeypatch.setenv('IMGSTUDY_CACHE', str(own/'cache')), monkeypatch.setenv('IMGSTUDY_RUNS', str(own/'runs'))
    new = start_search(dataset, {}, ('lenet5',))
    assert new.folder != old.folder and old.folder.exists() and new.facts.folds == 5
    assert f'{old.folder.name} was judged by a few validation images; the search begins again' in capsys.readouterr().out
    start_search(dataset, {}, ('lenet5',))
    assert 'begins again' not in capsys.readouterr().out

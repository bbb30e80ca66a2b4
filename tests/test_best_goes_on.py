"`imgstudy best` goes on: pieces of a training that was killed count, one process at a time, limits hold, Ctrl-C gives an answer."
from contextlib import nullcontext
from types import SimpleNamespace
import numpy as np, pytest, torch
from PIL import Image
from imgstudy import best as module
from imgstudy.best import _probe_run, best, best_sentences, candidate, do_unit, start_search, earlier_tests, training_run
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.models.register import create_model
from imgstudy.records.record import is_finished
from imgstudy.study.create import create_run
from imgstudy.study.ladder import judged, next_unit, took_too_long
from imgstudy.sweep.claims import Claim
from imgstudy.training.train import train
from safetensors.torch import save_file

tune = dict(kind='scratch', model='lenet5', train=12, valid=4, epochs=3, estimate=500.)


def folder(top, n):
    rng = np.random.default_rng(0)
    for c, level in dict(dark=80, light=170).items():
        (top/c).mkdir(parents=True)
        for i in range(n): Image.fromarray((level + rng.normal(0, 30, (40, 40, 3))).clip(0, 255).astype(np.uint8)).save(top/c/f'{i}.png')
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


def test_pieces_of_a_training_that_was_killed_count(own, monkeypatch):
    search = start_search(folder(own/'photos', 10), {}, ('lenet5',))
    monkeypatch.setitem(module._do, 'scratch', lambda search, unit: dict(accuracy=.5, cost=480.))
    do_unit(search, tune, 600)
    assert search.units[-1]['seconds'] == 480 # though this process took none
    search.units = [tune | dict(seconds=100., error=took_too_long)]
    do_unit(search, tune, 600)
    assert [u['seconds'] for u in search.units] == [100, 380] # what was counted is not counted again


def test_a_training_says_what_it_cost(own):
    search = start_search(folder(own/'photos', 10), {}, ('lenet5',))
    do_unit(search, next_unit(search.units, search.facts, 60), 60)
    unit = search.units[-1]
    assert unit['folds'] and 0 < unit['cost'] <= unit['seconds'] + .1 and unit['budget'] == 60


def test_in_a_folder_that_has_grown_every_try_sees_the_same_split(own, net):
    "Images that tested before test again, whatever is tried; the search of an ungrown folder is named as it was."
    name = folder(own/'photos', 20)
    before = load_data(run := create_run(dataset=name, model='lenet5', epochs=1, size=16))
    train(run, before)
    old = start_search(name, net, ('lenet5',))
    assert old.base.grown_from is None and training_run(old, tune) == candidate(old.base, 'lenet5', epochs=3)
    for c in ('dark', 'light'): # the same images, and as many more
        for i in range(20): Image.open(own/f'photos/{c}/{i}.png').rotate(90).save(own/f'photos/{c}/{i + 20}.png')
    grown = start_search(name, net, ('lenet5',))
    assert grown.base.grown_from and grown.folder != old.folder
    tries = [training_run(grown, tune), training_run(grown, dict(kind='tune', model='timm:test_resnet', epochs=1)), _probe_run(grown, 'timm:test_resnet')]
    tested = {*before.of('test').path}
    for run in tries:
        data = load_data(run)
        assert data.items.set_index('path').split.equals(grown.data.items.set_index('path').split)
        assert tested <= {*data.of('test').path}


def test_too_few_labels_for_a_curve(own, net):
    found = best(folder(own/'photos', 5), '40s', net, [], 64)
    labels = next(u for u in found.units if 'labels' in u)
    assert len(labels['labels']) == 1 and 'gain' not in labels
    assert found.sentences[2].startswith('Whether more labels would help cannot be told: half of the')


def test_one_process_at_a_time(own):
    dataset = folder(own/'photos', 10)
    search = start_search(dataset, {}, ('lenet5',))
    with Claim(search.root, search.folder.name) as mine:
        assert mine
        with pytest.raises(StudyError, match='Another process goes on with this search'): best(dataset, '5s', {}, ['lenet5'])
    other = start_search(dataset, {}, ('lenet5',))
    other.keep(dict(kind='labels', model='x', seconds=1.))
    with module.claimed(search): assert search.units == other.units # what the other did meanwhile


def test_probes_are_bounded_and_memory_is_an_error(own, net, monkeypatch):
    search = start_search(folder(own/'photos', 10), net, (), 64)
    unit = next_unit(search.units, search.facts, 60)
    monkeypatch.setattr(module, 'within', lambda limit: nullcontext())
    monkeypatch.setenv('IMGSTUDY_DEADLINE', '1')
    do_unit(search, unit, 60)
    assert search.units[-1]['error'] == took_too_long
    assert next_unit(search.units, search.facts, 60) is None and next_unit(search.units, search.facts, 90)['model'] == unit['model']
    def full(*args, **kwargs): raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')
    monkeypatch.setattr(module, 'get_features', full)
    do_unit(search, unit, 60)
    assert search.units[-1]['error'].startswith('out of memory') and next_unit(search.units, search.facts, 900) is None
    def broken(*args, **kwargs): raise RuntimeError('a bug')
    monkeypatch.setattr(module, 'get_features', broken)
    with pytest.raises(RuntimeError, match='a bug'): do_unit(search, unit, 60)


def test_interrupted_the_best_so_far_is_the_answer(own, net, monkeypatch, capsys):
    dataset, train = folder(own/'photos', 20), module.train_once
    def interrupted(run, data=None, root=None):
        if run.recipe.tune != 'probe': raise KeyboardInterrupt
        return train(run, data, root)
    def twice(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(module, 'train_once', twice)
    with pytest.raises(KeyboardInterrupt): best(dataset, '60s', net, ['lenet5'], 64) # a second time
    monkeypatch.setattr(module, 'train_once', interrupted)
    found = best(dataset, '60s', net, ['lenet5'], 64)
    assert 'Ctrl-C once more ends' in capsys.readouterr().out
    assert {u['kind'] for u in judged(found.units)} == {'probe'} and is_finished(found.record.path)
    assert 'it was stopped before the time was up' in found.sentences[1] and 'the same command goes on' in found.sentences[3]
    assert (found.folder/'card.md').exists() and (found.folder/'best.txt').exists()
    monkeypatch.setattr(module, 'train_once', train)
    again = best(dataset, '60s', net, ['lenet5'], 64) # and then to its end
    assert len(again.units) > len(found.units) and 'a larger --budget' in again.sentences[3]


def test_a_second_model_that_was_tested_is_said(own, net):
    dataset = folder(own/'photos', 20)
    found = best(dataset, '1s', net, [], 64)
    search = start_search(dataset, net, (), 64)
    assert earlier_tests(search, found.record) == [] and 'nothing was chosen on' in best_sentences(search, found.record)[0]
    other = SimpleNamespace(id='other', metrics=found.record.metrics)
    assert earlier_tests(search, other) == [found.record.id]
    assert '1 other model of this search had a test on them too' in best_sentences(search, other)[0]

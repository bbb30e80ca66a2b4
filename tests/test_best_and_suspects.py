"The best model within a budget: killed three times nothing is lost, and the same costs give the same choice; suspects of a folder."
import random, subprocess, sys, time
import pytest, torch
from safetensors.torch import save_file
from imgstudy.best import best, read_units
from imgstudy.core import StudyError
from imgstudy.models.register import create_model
from imgstudy.records.record import is_finished, verify_record
from imgstudy.study.ladder import next_unit
from imgstudy.training.suspects import suspects

nets = 'timm:test_resnet', 'timm:test_efficientnet'


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    "Files of weights whose batch norm has seen images."
    home, found = tmp_path_factory.mktemp('weights'), {}
    for name in nets:
        torch.manual_seed(0)
        net = create_model(name, 10, size=64).train()
        with torch.no_grad():
            for _ in range(4): net(torch.randn(16, 3, 64, 64))
        save_file(net.state_dict(), home/f'{name[5:]}.safetensors')
        found[name] = f"file:{home/f'{name[5:]}.safetensors'}"
    return found


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    return tmp_path


def started(weights):
    "A search in a process of its own."
    code = f"from imgstudy.best import best\nbest('digits', '45s', {weights!r}, ['lenet5'], 64)"
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kept(own):
    "The units that are kept, or none."
    found = [*(own/'runs').glob('best-*/units.json')]
    return read_units(found[0].parent)[1] if found else []


def test_killed_three_times_nothing_is_lost(weights, own):
    rng, before = random.Random(0), []
    for _ in range(3):
        deadline, n = time.time() + 120, len(before)
        process, wait = started(weights), rng.uniform(0, 6)
        while len(kept(own)) <= n and time.time() < deadline and process.poll() is None: time.sleep(.2)
        time.sleep(wait)
        process.kill(), process.wait()
        now = kept(own)
        assert now[:n] == before # what was done stays, word for word
        before = now
    found = best('digits', '45s', weights, ['lenet5'], 64)
    assert found.units[:len(before)] == before and is_finished(found.record.path)
    facts, units = read_units(found.folder)
    for i, u in enumerate(units[1:], 1):
        again = next_unit(units[:i], facts, 45)
        assert [again[k] for k in ('kind', 'model')] == [u[k] for k in ('kind', 'model')]
    assert next_unit(units, facts, 45) is None
    verify_record(found.record)
    assert len(found.sentences) == 4 and 'test images' in found.sentences[0] and found.record.id in found.sentences[3]
    assert (found.folder/'best.png').stat().st_size > 5000 and 'Known least' in (found.folder/'card.md').read_text()


def test_the_first_answer_comes_whatever_the_budget(weights, own):
    found = best('digits', '1s', {nets[0]: weights[nets[0]]}, [], 64)
    assert [u['kind'] for u in found.units] == ['read', 'probe'] and found.units[1]['train'] + found.units[1]['valid'] <= 500


def test_nothing_to_try_says_what_to_do(own):
    with pytest.raises(StudyError, match='Nothing could be tried'): best('digits', '5s', {}, [])


def test_suspects_of_a_folder(weights, own):
    table = suspects('digits', [*nets], 64, 400, inits=weights)
    assert [*table] == ['path', 'label', 'likely', 'split', 'p_label', 'p_likely', 'confidence'] and (table.label != table.likely).all()
    assert table.confidence.is_monotonic_increasing and table.attrs['images'] == 400


def test_suspects_need_two_networks(own, monkeypatch):
    monkeypatch.setattr('imgstudy.models.at_hand.networks_here', lambda: ['resnet18'])
    with pytest.raises(StudyError, match='2 pretrained networks are needed, and there is 1: resnet18'): suspects('digits')


@pytest.mark.parametrize('words, says', {'best folder:none': 'There is no folder', 'best digits --budget soon': 'is no time',
                                         'best digits --networks lenet5': 'no published ImageNet weights', 'suspects digitz': "Did you mean 'digits'",
                                         'suspects digits --networks resnet18': '2 networks are needed', 'suspects digits --picture x.doc': 'end in .png',
                                         'suspects digits --layout class': 'folder:PATH', 'best': 'required: DATASET'}.items())
def test_mistakes_are_answered_at_once(words, says):
    from imgstudy import cli
    with pytest.raises(StudyError, match=says): cli.answer(words.split())

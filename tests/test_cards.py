"Cards: they claim a choice where there was one, name the data set and nothing else after its folder, and say what is short or missing in words."
from dataclasses import replace
import numpy as np, pytest
from imgstudy.data.datasets import get_dataset
from imgstudy.report.cards import best_configs, card_facts, cards_page, model_card, was_chosen, write_cards
from imgstudy.report.own import own_answers
from imgstudy.share import shared_card
from imgstudy.stats.seeds import synth_record
from imgstudy.study.create import create_run
from imgstudy.study.search_picture import chosen_on

choice = 'the way to train was chosen on validation images'


def record(seed=0, frac=.8, seconds=3., **params):
    "A synthetic record with all that a card needs."
    r = synth_record(seed, frac, images=400)
    r.run = replace(create_run(dataset='digits', model='lenet5', size=32, epochs=2, lr=params.pop('lr', .01)), seed=seed, **params)
    r.history = r.history.assign(seconds=1.)
    data = dict(r.info['data'], classes=['a', 'b'], fingerprint='0123456789abcdef', note='')
    r.info |= dict(data=data, model=dict(parameters=61_000, flops=4e5, precision='fp32'), cost=dict(seconds=seconds),
                   environment=dict(gpu=None, cpu='a CPU'), created='2026-11-30T00:00:00+00:00')
    return r


def without_validation(r):
    "`r` as if it had been trained without validation images."
    return replace(r, history=r.history.assign(valid_accuracy=np.nan))


@pytest.fixture
def written(tmp_path):
    "A function that writes the cards of records: file name -> text."
    return lambda records: (write_cards(records, tmp_path/'cards'), {p.name: p.read_text() for p in (tmp_path/'cards').iterdir()})[1]


@pytest.mark.parametrize('records, said', [
    ([dict()], False), ([dict(), dict(seed=1), dict(seed=2)], False), # one way to train, however often
    ([dict(), dict(init='file:w.pth')], False), # another start has a card of its own
    ([dict(), dict(frac=.9, lr=.1)], True)], ids=['one', 'seeds', 'starts', 'two ways'])
def test_a_choice_is_claimed_where_there_was_one(records, said, written):
    cards = written([record(**params) for params in records])
    assert all((choice in text) == said for text in cards.values()) and len(cards) > 1


def test_nothing_is_chosen_without_validation_images(written):
    ways = [record(), record(frac=.9, lr=.1)]
    assert was_chosen([[r] for r in ways]) and 'the best on validation images' in own_answers(ways)[0]
    blind = [*map(without_validation, ways)]
    assert not any(choice in text for text in written(blind).values())
    assert 'the best on' not in own_answers(blind)[0] and 'of 2 ways to train' in own_answers(blind)[0]
    assert not was_chosen([[ways[0]], [blind[1]]])


@pytest.mark.parametrize('units, said', [([('probe', {})], ''), ([('probe', {}), ('labels', {})], ''), ([('probe', {}), ('tune', {})], '50 validation images'),
                                         ([('probe', dict(folds=5, hits='1'*250)), ('scratch', dict(folds=5, hits='1'*250))], '250 images, in folds')])
def test_a_search_says_what_it_chose_on(units, said):
    units = [dict(kind=k, model='m', train=200, valid=50, seconds=1., loss=.5, low=.7) | (dict(accuracy=.8) if k != 'labels' else {}) | more for k, more in units]
    assert chosen_on(units) == said
    assert ('chosen' in model_card([record()], said)) == bool(said) and said in model_card([record()], said)


@pytest.mark.parametrize('records, says', [
    ([record()], '; one training, so no interval over seeds; 95 % over images ['), ([record(folds=3, fold=0)], '; one training, so no interval over seeds; 95 %'),
    ([record(), record(seed=1)], ', 95 % over seeds ['), ([record(), replace(record(), run=record(seed=1).run)], '; 2 trainings with the same accuracy, so no interval over seeds;')],
    ids=['one', 'one fold', 'two', 'equal'])
def test_an_interval_that_is_not_there_is_said_to_be_missing(records, says):
    said = card_facts(records)['Results']
    assert says in said and 'none' not in said and 'nan' not in said


@pytest.mark.parametrize('seconds, says', [(.2, 'Under a second a training'), (.999, 'Under a second a training'), (1.3, '1 second a training'), (4321.4, '4,321 seconds a training')])
def test_a_short_training_took_some_time(seconds, says): assert card_facts([record(seconds=seconds)])['Cost'].startswith(f'{says} on ')


@pytest.mark.parametrize('name, source', [('timm:test_resnet', '(timm)'), ('lenet5', 'LeCun'), ('unknown', '(a model of your own)')])
def test_the_source_of_a_network(name, source):
    r = record()
    r.run = replace(r.run, model=name)
    assert source in card_facts([r])['Model']


ordinary = ['images', 'classes', 'rate', 'a', 'test', 'seeds', 'e', 'validation', 'Use']


@pytest.mark.parametrize('folder', ordinary)
def test_a_folder_with_an_ordinary_name_leaves_the_words_of_a_shared_card_alone(folder, tmp_path):
    "Only the title is another, whether the record names images by content or, as older ones do, by their folder."
    pytest.importorskip('huggingface_hub', reason="needs pip install 'imgstudy[share]'")
    r = record()
    r.run = replace(r.run, dataset='digits')
    plain = shared_card(r).partition('# LeNet')[2].replace(get_dataset('digits').title, 'Images of their owner')
    r.run = replace(r.run, dataset=f'folder:{tmp_path/folder}')
    said = shared_card(r).partition('# LeNet')[2]
    body = lambda text: text.partition('## Records')[0]
    assert body(said) == body(plain) and 'Images of their owner' in said
    assert said.partition('## Records')[2].strip().startswith('lenet5-s0-') and str(tmp_path) not in said


@pytest.mark.parametrize('timm_name', ['test_resnet', None])
def test_the_lines_that_load_a_shared_model_are_whole(timm_name):
    pytest.importorskip('huggingface_hub', reason="needs pip install 'imgstudy[share]'")
    lines = shared_card(record(), timm_name).split('```')[1].removeprefix('python').strip().splitlines()
    known = {}
    exec('\n'.join(l for l in lines if 'import' in l), known)
    for line in lines: compile(line, 'card', 'exec')
    used = {w.split('.')[0].split('(')[0] for l in lines if '= ' in l for w in [l.partition('= ')[2]]}
    assert used <= known.keys()


def test_the_page_of_all_cards_claims_no_choice_of_one():
    best = best_configs([record()])
    page = cards_page(best, {key: '' for key in best})
    assert choice not in page and 'where there are several' in page

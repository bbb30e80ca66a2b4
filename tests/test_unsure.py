"Predictions say when not to trust them: unsure, unlike the training images, or that it cannot be told."
import shutil
from dataclasses import replace
import numpy as np, pytest, torch
from PIL import Image
from imgstudy.core import cache_root
from imgstudy.data.datasets import find_images
from imgstudy.predict import find_doubts, load_predictor, predict, sample_photos, say_doubts
from imgstudy.records.record import read_record
from imgstudy.records.unsure import Doubts, doubts_text, last_layer, lowest_sure, measure_doubts, read_doubts, sure_from, unlike, unsure, watched
from imgstudy.study.create import create_run
from imgstudy.training.train import train

rng = np.random.default_rng(0)
root, items = find_images('digits')


@pytest.fixture(scope='module')
def record(tmp_path_factory):
    return train(create_run(dataset='digits', model='lenet5', epochs=3), root=tmp_path_factory.mktemp('runs'))


@pytest.fixture
def own(tmp_path):
    "A record of a folder of digits from 0 to 5, and the folder."
    for path, label in zip(items.path, items.label):
        if label < '6' and len([*(tmp_path/'few'/label).glob('*')]) < 40:
            (tmp_path/'few'/label).mkdir(parents=True, exist_ok=True)
            shutil.copy(root/path, tmp_path/'few'/label)
    return train(create_run(dataset=f'folder:{tmp_path}/few', model='lenet5', epochs=2), root=tmp_path/'runs'), tmp_path/'few'


def grey_stripes(n): return [np.tile(np.arange(32)[:, None, None]//k % 2*200, (1, 32, 3)).astype(np.uint8) for k in range(1, n + 1)]
strange = dict(
    photographs=sample_photos, colours=lambda: [np.full((20, 30, 3), c, np.uint8) for c in [(255, 0, 0), (0, 90, 200), (9, 250, 9)]],
    noise=lambda: [*rng.integers(0, 256, (10, 40, 40, 3), dtype=np.uint8)], black=lambda: [np.zeros((32, 32, 3), np.uint8)],
    white=lambda: [np.full((32, 32), 255, np.uint8)], stripes=lambda: grey_stripes(6),
    inverted=lambda: [255 - np.asarray(Image.open(root/p).convert('RGB')) for p in items.path[:30]])


@pytest.mark.parametrize('kind', strange)
def test_what_is_no_digit_is_unlike_digits(kind, record):
    assert predict(strange[kind](), record).note.str.contains(unlike).mean() >= .9


def test_test_images_are_rarely_unlike_and_errors_are_mostly_noted(record):
    table = predict([root/p for p in record.predictions['path']], record)
    wrong = table.predicted.astype(int).to_numpy() != record.predictions['target']
    assert table.note.str.contains(unlike).mean() < .03
    noted = (table.note != '').to_numpy()
    assert wrong[noted].mean() > 3*wrong[~noted].mean() and noted.mean() < .4
    assert say_doubts(record) == table.attrs['notes'] and 'of 288 validation images' in table.attrs['notes']


def test_the_threshold_and_its_counts_are_those_of_the_validation_images(record):
    from imgstudy.data.split import load_data
    valid = load_data(record.run).of('valid')
    table, doubts = predict([root/p for p in valid.path], record), find_doubts(record)
    wrong, sure = (table.predicted != valid.label).to_numpy(), (table.probability >= doubts.threshold).to_numpy()
    assert doubts.counts == (sure.sum(), (sure & wrong).sum(), (~sure).sum(), (~sure & wrong).sum())
    assert wrong[sure].mean() <= .05 and (table.note.str.contains(unsure) == ~sure).all()


@pytest.mark.parametrize('often_wrong', [0., .1, .5, 1.])
@pytest.mark.parametrize('n', [10, 57, 300])
def test_no_threshold_is_lower_or_more_often_wrong(often_wrong, n):
    for _ in range(20):
        c = rng.random(n).round(2)
        wrong = rng.random(n) < often_wrong*(1.1 - c)
        fine = [v for v in c if (c >= v).sum() >= 10 and wrong[c >= v].mean() <= .05]
        assert lowest_sure(c, wrong) == min(fine, default=np.inf)
        t = sure_from(c, wrong)
        assert t >= lowest_sure(c, wrong) and (t == np.inf or wrong[(c >= t)].mean() <= .05)


@pytest.mark.parametrize('n', [0, 1, 9])
def test_few_images_say_nothing_about_a_rate(n): assert sure_from([.9]*n, [False]*n) is None


def moved(record, folder): folder.rename(folder.with_name('elsewhere'))
def changed(record, folder): next(folder.glob('0/*')).unlink()
def added(record, folder): shutil.copy(next(folder.glob('0/*')), folder/'1'/'new.png')
def a_class_less(record, folder): shutil.rmtree(folder/'3')
def emptied(record, folder): shutil.rmtree(folder); folder.mkdir()


@pytest.mark.parametrize('happens', [moved, changed, a_class_less, emptied])
def test_without_the_images_it_says_that_it_cannot_tell(happens, own):
    record, folder = own
    happens(record, folder)
    table = predict(sample_photos(3), record)
    assert table.note.str.startswith('cannot be told: ').all() and table.attrs['notes'].startswith('Whether a prediction')
    assert not (record.path/'doubts.npz').exists(), 'the images may come back'


def test_images_that_came_later_do_not_matter(own):
    record, folder = own
    added(record, folder)
    assert not predict(sample_photos(3), record).note.str.startswith('cannot be told').any()


def test_what_was_measured_stays_without_the_images(own):
    record, folder = own
    before = predict(sample_photos(3), record).note
    assert (record.path/'doubts.npz').exists()
    moved(record, folder)
    assert (predict(sample_photos(3), read_record(record.path)).note == before).all()
    (record.path/'doubts.npz').write_bytes(b'torn')
    assert predict(sample_photos(3), read_record(record.path)).note.str.startswith('cannot').all()


def test_where_nothing_can_be_written_the_cache_keeps_it(own):
    record, folder = own
    (record.path/'doubts.npz').mkdir() # a folder of that name cannot be written, nor read
    before = predict(sample_photos(3), record).note
    moved(record, folder)
    assert [*(cache_root()/'doubts').glob(f'{record.id}-*')] and (predict(sample_photos(3), record).note == before).all()


def test_without_validation_images_it_cannot_tell(tmp_path):
    record = train(create_run(dataset='digits', model='lenet5', epochs=1, subset=100, valid=0.), root=tmp_path)
    assert set(predict(sample_photos(3), record).note) == {'cannot be told: there were no validation images'}


def test_nothing_is_downloaded_for_it(record, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path))
    monkeypatch.setattr('imgstudy.predict.load_data', lambda run: pytest.fail('it would be downloaded'))
    other = replace(record, run=replace(record.run, dataset='imagenette'), path=record.path)
    shutil.rmtree(record.path/'doubts.npz', ignore_errors=True); (record.path/'doubts.npz').unlink(missing_ok=True)
    predictor = replace(load_predictor(record), record=other)
    assert find_doubts(predictor).why == 'the images of its training are not here'


def test_a_predictor_made_by_hand_still_predicts(record):
    table = predict(sample_photos(2), replace(load_predictor(record), record=None))
    assert set(table.note) == {'cannot be told: there is no record'}
    assert 'note' not in predict(sample_photos(2), record, notes=False)


@pytest.mark.parametrize('model', ['mlp_s', 'cnn3', 'vit', 'convnext', 'timm:test_resnet', 'timm:test_vit', 'timm:test_convnext'])
def test_every_family_has_features(model):
    from imgstudy.models.register import create_model
    size = {} if 'timm' not in model else dict(size=160)
    net = torch.nn.Module()
    net.model = create_model(model, 7, **({'size': 32} | size)).eval()
    net.forward = lambda x: net.model(x)
    with torch.no_grad(), watched(net) as seen: net(torch.rand(2, 3, *[size.get('size', 32)]*2))
    (features, looks), = seen
    assert features.ndim == 2 and len(features) == 2 and np.isfinite(features).all() and looks.shape == (2, 8)


def doubts_of(wrong):
    "What `len(wrong)` validation images tell; the last ones are the surest."
    images = rng.normal(size=(20, 4)), rng.normal(size=(20, 8))
    return measure_doubts(images, [a[:len(wrong)] for a in images], np.linspace(.4, .9, len(wrong)), np.asarray(wrong, bool))


@pytest.mark.parametrize('n, missed, said', [(14, 5, 'Of 14 test images, 5 (35.7 %) were predicted wrongly.'), (14, 0, 'Of 14 test images, 0 (0.0 %) were predicted wrongly.'),
                                             (1200, 1, 'Of 1,200 test images, 1 (0.1 %) was predicted wrongly.'), (1, 1, 'Of 1 test image, 1 (100.0 %) was predicted wrongly.'), (0, 0, '')])
def test_where_nothing_is_sure_the_test_images_have_one_rate(n, missed, said):
    text = doubts_text(doubts_of(np.arange(12) % 4 == 0), (np.linspace(.3, 1, n), np.arange(n) < missed))
    assert text.startswith('Every prediction is "unsure": 3 of 12 validation images were predicted wrongly, and no probability leaves')
    assert f'of them wrong. {said}'.strip() + ' "unlike' in text and ' it,' not in text and 'below' not in text


@pytest.mark.parametrize('tested, said', [(([.3, .5, .8, .95], [True, False, False, True]), '1 of 2 (50.0 %) at or above it, 1 of 2 (50.0 %) below it.'),
                                          (([.9, .95], [True, False]), '1 of 2 (50.0 %) at or above it, none lay below it.'), (([.1], [True]), 'none lay at or above it, 1 of 1 (100.0 %) below it.')])
def test_rates_of_test_images_say_of_what(tested, said):
    text = doubts_text(doubts_of(np.arange(20) == 0), tested)
    assert f' Wrong predictions of test images: {said} "unlike' in text
    assert text.count('Wrong predictions of') == 2

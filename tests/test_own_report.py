"A report of one's own trainings: what is theirs, under the names they know, and nothing of the five studies or of their folders."
import re
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.records.record import read_records
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "The text of the page on two folders of images, one of them trained in two ways."
    top, rng = tmp_path_factory.mktemp('home of Jane'), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('HOME', str(top)); m.setenv('IMGSTUDY_RUNS', str(top/'runs')); m.setenv('IMGSTUDY_CACHE', str(top/'cache'))
        for name, classes in dict(garden=('rose', 'weed <b>'), pets=('cat', 'dog', 'hen')).items():
            for k, c in enumerate(classes):
                (top/'private'/name/c).mkdir(parents=True)
                for i in range(14): Image.fromarray(rng.integers(60*k, 60*k + 130, (20, 20, 3), np.uint8)).save(top/'private'/name/c/f'{i}.png')
        run = lambda name, **kw: create_run(**dict(dataset=f"folder:{top/'private'/name}", model='lenet5', size=16, epochs=1) | kw)
        for r in (run('garden'), run('garden', seed=1), run('garden', model='mlp_s'), run('pets')): train(r)
        m.setattr('sys.argv', ['imgstudy', 'report', '--root', str(top/'runs'), '--out', str(top/'mine.html')])
        cli.main()
        yield (top/'mine.html').read_text(encoding='utf-8'), read_records(top/'runs'), top


def test_it_has_its_answers_and_every_training(page):
    text, records, _ = page
    assert re.search('garden: of 2 ways to train, the best on validation images is', text) and 'pets: LeNet-5 from scratch' in text
    for r in records: assert f'runs/{r.path.name}/record.json' in text
    assert 'weed &lt;b&gt;' in text and 'weed <b>' not in text


@pytest.mark.parametrize('words', ['five studies', 'Our own studies', 'references.csv', 'published', 'stanford_dogs', 'cifar', 'STL-10', 'Contamination', 'missing',
                                   'Trainings of no study', 'Demonstrations', 'folder:rose', 'folder:cat', 'home of Jane', 'private/'])
def test_it_has_nothing_that_is_not_theirs(words, page):
    shown = re.sub('<pre.*?</pre>', '', page[0], flags=re.S) # the code of the page
    assert words not in shown and str(page[2]) not in page[0]


def test_no_heading_without_a_section(page):
    headings = re.findall('<h2 id=[^>]*>(.*?)</h2>', page[0])
    assert headings == ['The answer', 'What to doubt', 'The best of each data set', 'How it was learnt, and where it errs', 'What it costs', 'Every training']

"The committed results: each follows from its predictions, and none names a place on the machine it was made on."
import re
from pathlib import Path
import pytest
from imgstudy.records import read_record, verify_record
from imgstudy.runs import run_id
from imgstudy.schedule import total_epochs

folders = sorted((Path(__file__).parent.parent/'report/records').iterdir())


@pytest.mark.parametrize('folder', folders, ids=lambda p: p.name)
def test_record_holds(folder):
    record = read_record(folder)
    verify_record(record)
    assert folder.name == run_id(record.run), 'the folder is named after everything in the run'
    planned = total_epochs(record.run.recipe)
    assert len(record.history) == planned or record.run.recipe.patience and len(record.history) < planned
    assert not re.search(r'"(/|[A-Z]:\\|~)', (folder/'record.json').read_text())

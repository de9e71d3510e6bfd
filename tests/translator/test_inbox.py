from services.translator.inbox import Flush, Inbox, Said, Source
from tests.translator.harness import words


async def test_what_waits_becomes_one_message_and_is_known_to_wait() -> None:
    inbox = Inbox(10)
    one, two, three = words("one two three")
    said: list[Said] = [Source([one], (two,)), Source([two], (three,)), Flush(1), Source([], ())]
    assert not inbox.waits()
    for message in said:
        await inbox.put(message)
    found = []
    while inbox.waits():
        found.append(await inbox.get())
    assert found == [Source([one, two], (three,)), Flush(1), Source([], ())]

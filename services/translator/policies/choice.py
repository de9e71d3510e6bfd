"""The policy that settings name."""

from services.translator.config import Settings
from services.translator.policies.align_att import AlignAtt
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Policy
from services.translator.policies.wait_k import WaitK
from services.translator.policies.whole_sentence import WholeSentence


def policy_of(chosen: Settings) -> Policy:
    """What makes text certain before its sentence has ended."""
    match chosen.policy:
        case "local-agreement":
            return LocalAgreement(chosen.agreement_words, chosen.held_back)
        case "align-att":
            return AlignAtt(chosen.attention_margin)
        case "wait-k":
            return WaitK(chosen.wait_words)
        case "sentence":
            return WholeSentence()

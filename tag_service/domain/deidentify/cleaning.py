"""Texts reduced to words that name nobody (PS3.15 E.3.4, E.3.5): what radiology calls its regions, techniques and
findings, vertebrae, and measures with their units. Every other word goes, and so does every number without a unit,
which may be part of a date or an identifier. A person whose name is such a word ("Head") is beyond telling apart.
"""

import re
from typing import Final

from tag_service.domain.standard.vr import SINGLE_VALUED_VRS

# Where: regions, organs, vessels.
_REGIONS: Final = """
    abdo abdomen abdominal achilles adrenal adrenals airway airways ankle ankles anterior aorta aortic appendix arm
    arms arterial arteries artery atlas atrial atrium axilla axillary bilateral biliary bladder bone bones bowel
    brachial brain brainstem breast breasts bronchial bronchus calcaneus calf cardiac carotid carotids carpal cava
    cavity cerebellar cerebellum cerebral cervical chest clavicle coccyx colon condyle cornea coronary cranial
    cranium cruciate diaphragm disc discs distal duct duodenum ear ears elbow elbows esophagus extremities extremity
    eye eyes facial femoral femur fetal fetus fibula finger fingers foot forearm gallbladder gland glands gluteal
    groin hand hands head heart heel hepatic hilar hilum hip hips humerus iliac inguinal intestine intracranial jaw
    joint joints kidney kidneys knee knees larynx left leg legs ligament liver lobe lower lumbar lumbosacral lung
    lungs lymph mandible mastoid maxilla maxillary medial mediastinum meniscus mesenteric mitral muscle nasal neck
    nerve node nodes nose oesophagus optic oral orbit orbital orbits ovary pancreas pancreatic parathyroid parotid
    patella pelvic pelvis pericardium peripheral peritoneum petrous pharynx pituitary placenta pleura pleural
    popliteal portal posterior prostate proximal pulmonary radius rectal rectum renal retina retinal rib ribs right
    sacral sacroiliac sacrum salivary scaphoid scapula scrotum sella septum shoulder shoulders sinus sinuses skull
    soft spinal spine spleen splenic sternum stomach subclavian talus teeth temporal testis thalamus thigh thoracic
    thoracolumbar thorax throat thumb thymus thyroid tibia tibial tissue tmj toe toes tongue tooth torso trachea
    tricuspid trunk ulna upper ureter ureters urethra urinary uterus vagina valve vascular vein veins vena venous
    ventricle ventricles ventricular vertebra vertebrae vertebral vessel vessels wrist wrists
"""
# How: modalities, projections, sequences, phases.
_TECHNIQUES: Final = """
    acquisition adc angio angiogram angiography ap apical asl attenuated attenuation auto average averaged ax axial
    axis b0 b1000 b50 b500 b800 balanced baseline biopsy blade blood bold bolus bssfp calibration cbct cbf cbv cine
    coil color colour contrast cor coronal corrected correction cr cranio craniocaudal ct cta ctac curved cut
    decubitus delay delayed density diastole diastolic diffusion digital dir dixon doppler dose dr dsa dti dual dwi
    dx dynamic early ecg echo echocardiogram echoplanar elastography endo enhanced enhancement epi erect ex exam
    examination exhalation expiration exposure extension fa fast fat fdg ffdm ffe fieldmap filtered fl flair flash
    flexion flow fluoro fluoroscopy fmri follow fov frame free from frontal fs fse full function functional fusion
    gad gadolinium gated gating ge gradient gre grid hardi haste helical high hires hr hrct image images imaging in
    inhalation inhale inphase insp inspiration intra inversion ir iso isotropic iv kernel kub landmark lat late
    lateral lateromedial lcc lmlo lo localiser localized localizer low magnetic magnitude mammo mammogram
    mammography map maps mask mean mediolateral medium mep mg minip mip ml mlo mode motion mpr mprage mr mra mrcp
    mri mrs mrv multi multiphase multiplanar mv nac native nm non noncontrast normal obl oblique of off on opposed
    oral out outphase overlay pa parallel parametric pc pd perf perfusion pet phase phases plain planar plane
    planning plus portable post postcontrast power pre precontrast prep procedure profile projection prone protocol
    proton pulse qa quant radial radiograph radiography raw rca rcc recon reconstruction reformat reformatted
    registration rest resting rmlo roi rotation routine rt run sag sagittal saturation scan scanogram scout
    screening se sec segmentation sense sequence sequential series shim single slab slice slices spair spect spgr
    spin spiral spoiled standard standing static std stereo stir stress sub subtraction supine suppressed
    suppression susceptibility swan swi systole systolic t1 t1w t2 t2w test tf tfe thick thin three tilt time tirm
    to tof tomo tomography tomosynthesis topogram total tra trace track transaxial transverse tse turbo two
    ultrasound unenhanced us vibe view views volume volumetric vrt water weighted whole window with without wo xa
    xray
"""
# Why and what: findings, devices, routine.
_FINDINGS: Final = """
    abscess acute and aneurysm arthritis at atrophy benign biopsy bleed by calcification calcium cancer carcinoma
    catheter chronic clip collapse consolidation cyst cystic degenerative dislocation dissection edema effusion
    embolism embolus emphysema fibrosis fluid for fracture fractures gas haematoma haemorrhage hematoma hemorrhage
    hernia hydrocephalus implant infarct infection inflammation injury ischaemia ischemia leak lesion lesions
    malignant mass metastases metastasis metastatic negative no nodule nodules none not obstruction oedema or
    pacemaker pain perforation pneumonia pneumothorax polyp positive prosthesis pus rupture sclerosis scoliosis
    shunt staging stenosis stent stroke swelling tear the therapy thrombosis thrombus trauma action tumor tumour
    ulcer unremarkable up w/o
"""
_VERTEBRAE: Final = frozenset(
    f"{region}{number}" for region, count in (("c", 7), ("t", 12), ("l", 5), ("s", 5)) for number in range(1, count + 1)
)
_WORDS: Final = frozenset((_REGIONS + _TECHNIQUES + _FINDINGS).split()) | _VERTEBRAE

_WORD: Final = re.compile(r"\bw/o\b|[^\W_]+(?:[.,][0-9]+[^\W_]*)*", re.IGNORECASE)
_MEASURE: Final = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{1,3})?(?:mm|cm|mgy|gy|kvp?|mas?|mhz|hz|min|sec|ms|s|t|d|deg|ml)")
# Stands for the words that went, so that nobody takes what is left for all there was.
_GAP: Final = "*"


def cleaned(vr: str, text: str) -> str:
    """The words of a text that name nobody, with an asterisk where others were, and "" for a value without any.

    A value becomes no longer, is ASCII, and stays one of several where it was.
    """
    single_values = [text] if vr in SINGLE_VALUED_VRS else text.split("\\")
    return "\\".join(map(_cleaned, single_values)).strip("\\")


def _cleaned(text: str) -> str:
    kept: list[str] = []
    for word in _WORD.findall(text):
        if _names_nobody(word):
            kept.append(word)
        elif not kept or kept[-1] != _GAP:
            kept.append(_GAP)
    return "" if kept == [_GAP] else " ".join(kept)


def _names_nobody(word: str) -> bool:
    folded = word.lower()
    return word.isascii() and (folded in _WORDS or _MEASURE.fullmatch(folded) is not None)

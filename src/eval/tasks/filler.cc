#include "eval/tasks/filler.h"

#include <array>

namespace a2sf {
namespace {

constexpr std::array<std::string_view, kFillerNames> kNames = {
    "Agnes", "Albert", "Beatrice", "Carlos",  "Clara",  "Daniel", "Edith",  "Felix",  "Greta",  "Harold", "Ingrid",
    "Ivan",  "Joseph", "Karin",    "Laura",   "Leon",   "Martha", "Miguel", "Nadia",  "Oscar",  "Paula",  "Peter",
    "Rosa",  "Samuel", "Sophie",   "Theresa", "Thomas", "Ursula", "Victor", "Walter", "Yvonne", "Zoe"};
constexpr std::array<std::string_view, 32> kThings = {
    "lamp",   "ladder",   "basket",   "clock",   "kettle", "violin",    "map",     "blanket",
    "mirror", "painting", "suitcase", "bicycle", "teapot", "rope",      "carpet",  "notebook",
    "barrel", "wagon",    "candle",   "saddle",  "chair",  "net",       "compass", "curtain",
    "boat",   "hammer",   "bell",     "coat",    "drum",   "telescope", "vase",    "wheel"};
constexpr std::array<std::string_view, 24> kAdjectives = {
    "broken",  "heavy",   "narrow", "blue",   "wooden",   "famous", "rusty", "small",
    "painted", "cheap",   "warm",   "new",    "borrowed", "round",  "dusty", "green",
    "plain",   "foreign", "large",  "pretty", "crooked",  "silver", "long",  "dark"};
constexpr std::array<std::string_view, 24> kPlaces = {"harbour", "library",  "mill",    "orchard", "station", "market",
                                                      "chapel",  "school",   "garden",  "bakery",  "valley",  "museum",
                                                      "theatre", "castle",   "village", "factory", "bridge",  "forest",
                                                      "cellar",  "hospital", "tower",   "stable",  "square",  "island"};
// Of verbs whose participle is their past tense.
constexpr std::array<std::string_view, 20> kVerbs = {"carried",  "repaired", "sold",    "painted",   "borrowed",
                                                     "cleaned",  "lost",     "found",   "measured",  "admired",
                                                     "sketched", "buried",   "wrapped", "bought",    "lifted",
                                                     "dropped",  "polished", "counted", "described", "returned"};
constexpr std::array<std::string_view, 12> kTimes = {
    "that morning",    "late in the evening",    "on the first day of spring", "after supper",     "one afternoon",
    "before the rain", "while the others slept", "in the cold of winter",      "during the feast", "without a word",
    "a week later",    "for the second time"};

// $n is a name, $t a thing, $a an adjective, $p a place, $v a verb, $d a time.
constexpr std::array<std::string_view, 24> kSentences = {"$n $v the $a $t near the $p $d.",
                                                         "Nobody in the $p had seen such a $a $t.",
                                                         "In the $p, $n found a $a $t under the stairs.",
                                                         "The $t was too $a for the $p, so $n sold it to a stranger.",
                                                         "$n asked who had left the $a $t in the $p.",
                                                         "A letter came from the $p, and $n kept it beside the $t.",
                                                         "When the bells rang, $n $v the $t and went home.",
                                                         "It was $n who $v the $a $t $d.",
                                                         "The road to the $p was long, but $n did not mind.",
                                                         "$n told the children a story about a $t and a $a dog.",
                                                         "At the $p there was bread, and $n bought some $d.",
                                                         "Snow lay on the roof of the $p, and the $t was still $a.",
                                                         "$n had a cousin who worked in the $p and $v every $t.",
                                                         "The people of the $p talked about the $a $t for years.",
                                                         "$n wanted to paint the $p, but the light was too $a.",
                                                         "Behind the $p stood a $t that $n had $v $d.",
                                                         "The old woman gave $n a $t and asked for nothing.",
                                                         "Every Sunday $n walked from the $p to the river and back.",
                                                         "The $a $t belonged to $n, who never spoke of it.",
                                                         "There was music in the $p, and $n danced $d.",
                                                         "$n waited at the $p until the last train had gone.",
                                                         "They say that $n once $v a $t in the $p.",
                                                         "$n looked at the $a $t and thought of the sea.",
                                                         "The door of the $p was $a, and $n knocked $d."};

template <std::size_t N>
std::string_view one_of(const std::array<std::string_view, N>& all, RandomBits& random) {
  return all[random.below(N)];
}

std::string_view word_for(char field, RandomBits& random) {
  switch (field) {
    case 'n':
      return one_of(kNames, random);
    case 't':
      return one_of(kThings, random);
    case 'a':
      return one_of(kAdjectives, random);
    case 'p':
      return one_of(kPlaces, random);
    case 'v':
      return one_of(kVerbs, random);
    default:
      return one_of(kTimes, random);
  }
}

}  // namespace

std::string filler_sentence(RandomBits& random) {
  const std::string_view form = one_of(kSentences, random);
  std::string sentence;
  for (std::size_t at = 0; at < form.size(); ++at) {
    if (form[at] == '$') {
      sentence += word_for(form[++at], random);
    } else {
      sentence += form[at];
    }
  }
  return sentence;
}

std::string_view filler_name(RandomBits& random) { return one_of(kNames, random); }

}  // namespace a2sf

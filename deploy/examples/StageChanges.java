// Prints stage changes as they come. No build: java -cp 'LIBS/*' StageChanges.java [BROKERS [GROUP]], with
// kafka-clients, slf4j-api and jackson-databind in LIBS. With UNTIL_END=1 it stops where the topic ends.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public class StageChanges {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, args.length > 0 ? args[0] : "localhost:9092",
                ConsumerConfig.GROUP_ID_CONFIG, args.length > 1 ? args[1] : "stage-changes-example",
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                // Java's default is read_uncommitted, which also shows what an aborted transaction wrote.
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class,
                ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        boolean untilEnd = System.getenv("UNTIL_END") != null;
        ObjectMapper json = new ObjectMapper();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(List.of("stage-changes"));
            do {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    JsonNode change = json.readTree(record.value());
                    System.out.printf("%s\t%s\t%s\t%s -> %s\t%s\t%s%n",
                            change.get("ts").asText(), record.key(), change.get("lifecycle").asText(),
                            change.get("from").asText(), change.get("to").asText(),
                            change.get("trigger").asText(), change.get("rule").asText());
                }
            } while (!untilEnd || !isAtEnd(consumer));
        }
    }

    /** Of a read_committed consumer the end offsets are those of the last stable records. */
    private static boolean isAtEnd(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, Long> ends = consumer.endOffsets(consumer.assignment());
        return !ends.isEmpty() && ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue());
    }
}

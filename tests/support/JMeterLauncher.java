import com.thoughtworks.xstream.XStream;
import java.lang.reflect.Field;
import org.apache.jmeter.JMeter;
import org.apache.jmeter.save.SaveService;
import org.apache.jmeter.util.JMeterUtils;

/** Starts JMeter 2.13 of Debian, and allows the classes that its newer XStream rejects in test plans. */
public class JMeterLauncher {
  public static void main(String[] args) throws Exception {
    String home = System.getProperty("jmeter.home");
    JMeterUtils.setJMeterHome(home);
    JMeterUtils.loadJMeterProperties(home + "/bin/jmeter.properties");
    for (Field field : SaveService.class.getDeclaredFields()) {
      if (XStream.class.isAssignableFrom(field.getType())) {
        field.setAccessible(true);
        ((XStream) field.get(null)).allowTypesByWildcard(new String[] {"org.apache.jmeter.**", "org.apache.jorphan.**"});
      }
    }
    new JMeter().start(args);
  }
}
